// Traces that the router keeps, as methods of expertmesh.v1.Control.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_TRACE_SERVICE_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_TRACE_SERVICE_H_

#include "absl/status/statusor.h"
#include "common/net/grpc_server.h"
#include "expertmesh/v1/trace.pb.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::serve {

// `tracer` is null while the router does not trace. Errors: see control.proto.
absl::StatusOr<v1::GetTraceResponse> GetTrace(tracing::Tracer* tracer,
                                              const v1::GetTraceRequest& request);
absl::StatusOr<v1::ListTracesResponse> ListTraces(tracing::Tracer* tracer,
                                                  const v1::ListTracesRequest& request);

// `tracer`, unless it is null, must outlive the server.
void AddTraceMethods(tracing::Tracer* tracer, net::GrpcServerSpec* spec);

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_TRACE_SERVICE_H_
