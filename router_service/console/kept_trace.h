// A trace that the router keeps, decoded.
#ifndef EXPERTMESH_ROUTER_SERVICE_CONSOLE_KEPT_TRACE_H_
#define EXPERTMESH_ROUTER_SERVICE_CONSOLE_KEPT_TRACE_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/trace/otlp.pb.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::console {

// `tracer` is null while the router does not trace. Errors: as serve::GetTrace.
absl::StatusOr<internal::otlp::TracesData> FindTrace(tracing::Tracer* tracer,
                                                     const std::string& id);

}  // namespace expertmesh::console

#endif  // EXPERTMESH_ROUTER_SERVICE_CONSOLE_KEPT_TRACE_H_
