// The methods of the contract's Control that are about traces.
#include "client/cpp/library/client_impl.h"
#include "common/base/status_macros.h"
#include "expertmesh/v1/control.pb.h"

namespace expertmesh::client {

absl::StatusOr<std::string> Client::GetTrace(const std::string& trace_id) {
  v1::GetTraceRequest request;
  request.set_trace_id(trace_id);
  ASSIGN_OR_RETURN(auto response,
                   impl_->Ask<v1::GetTraceResponse>("/expertmesh.v1.Control/GetTrace", request));
  return std::move(*response.mutable_traces_data());
}

absl::StatusOr<std::vector<TraceSummary>> Client::ListTraces(uint32_t limit, bool slowest) {
  v1::ListTracesRequest request;
  request.set_limit(limit);
  request.set_order(slowest ? v1::TRACE_ORDER_SLOWEST : v1::TRACE_ORDER_RECENT);
  ASSIGN_OR_RETURN(const auto response, impl_->Ask<v1::ListTracesResponse>(
                                            "/expertmesh.v1.Control/ListTraces", request));
  std::vector<TraceSummary> traces;
  for (const v1::TraceSummary& trace : response.traces()) {
    traces.push_back({.trace_id = trace.trace_id(),
                      .name = trace.name(),
                      .start = absl::FromUnixNanos(static_cast<int64_t>(trace.start_unix_nano())),
                      .duration = absl::Microseconds(trace.duration_us()),
                      .layer = trace.layer(),
                      .tokens = trace.tokens(),
                      .code = static_cast<absl::StatusCode>(trace.code()),
                      .kept = trace.kept(),
                      .spans = trace.spans()});
  }
  return traces;
}

}  // namespace expertmesh::client
