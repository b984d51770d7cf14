#include "router_service/console/kept_trace.h"

#include "router_service/serve/trace_service.h"

namespace expertmesh::console {

using internal::otlp::TracesData;

absl::StatusOr<TracesData> FindTrace(tracing::Tracer* tracer, const std::string& id) {
  v1::GetTraceRequest request;
  request.set_trace_id(id);
  const absl::StatusOr<v1::GetTraceResponse> found = serve::GetTrace(tracer, request);
  if (!found.ok()) {
    return found.status();
  }
  TracesData data;
  if (!data.ParseFromString(found->traces_data())) {
    return absl::InternalError("what is kept of the trace cannot be read");
  }
  return data;
}

}  // namespace expertmesh::console
