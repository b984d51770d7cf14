// The flags of tracing, and what they make.
#ifndef EXPERTMESH_ROUTER_SERVICE_TRACE_FLAGS_H_
#define EXPERTMESH_ROUTER_SERVICE_TRACE_FLAGS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::router {

// Null with --tracing=off.
//   INVALID_ARGUMENT  names the flag and what it may be.
absl::StatusOr<std::unique_ptr<tracing::Tracer>> TracerFromFlags();

}  // namespace expertmesh::router

#endif  // EXPERTMESH_ROUTER_SERVICE_TRACE_FLAGS_H_
