#include "router_service/serve/trace_service.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/peer_text.h"
#include "expertmesh/v1/control.grpc.pb.h"

namespace expertmesh::serve {
namespace {

constexpr size_t kDefaultTraces = 20;
constexpr size_t kMostTraces = 1000;
constexpr size_t kMostEchoed = 64;

absl::Status NotTracing() {
  return absl::FailedPreconditionError(
      "this router keeps no traces; start it without --tracing=off");
}

void Write(const tracing::TraceLine& line, v1::TraceSummary* summary) {
  summary->set_trace_id(ToHex(line.id));
  summary->set_name(line.name.data(), line.name.size());
  summary->set_start_unix_nano(static_cast<uint64_t>(absl::ToUnixNanos(line.start)));
  summary->set_duration_us(ToMicros(line.duration));
  summary->set_layer(line.layer);
  summary->set_tokens(line.tokens);
  summary->set_code(static_cast<int>(line.code));
  summary->set_kept(std::string(tracing::NameOf(line.keep)));
  summary->set_spans(line.spans);
}

}  // namespace

absl::StatusOr<v1::GetTraceResponse> GetTrace(tracing::Tracer* tracer,
                                              const v1::GetTraceRequest& request) {
  if (tracer == nullptr) {
    return NotTracing();
  }
  const std::optional<trace::TraceId> id = trace::ParseTraceId(request.trace_id());
  if (!id.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("trace_id is '", PeerText(request.trace_id(), kMostEchoed),
                     "'; send 32 hexadecimal digits that are not all 0"));
  }
  tracer->Flush();  // What ended just now is asked for most.
  std::optional<std::string> bytes = tracer->store().Find(*id);
  if (!bytes.has_value()) {
    return absl::NotFoundError(
        absl::StrCat("trace ", ToHex(*id),
                     " is not here: it was not sampled and nothing kept it, or newer ones took its "
                     "place; send 'sampled' in traceparent, or raise --trace-ratio"));
  }
  v1::GetTraceResponse response;
  response.set_traces_data(*std::move(bytes));
  return response;
}

absl::StatusOr<v1::ListTracesResponse> ListTraces(tracing::Tracer* tracer,
                                                  const v1::ListTracesRequest& request) {
  if (tracer == nullptr) {
    return NotTracing();
  }
  tracer->Flush();
  const size_t limit =
      request.limit() == 0 ? kDefaultTraces : std::min<size_t>(request.limit(), kMostTraces);
  const std::vector<tracing::TraceLine> lines = request.order() == v1::TRACE_ORDER_SLOWEST
                                                    ? tracer->store().Slowest(limit)
                                                    : tracer->store().Recent(limit);
  v1::ListTracesResponse response;
  for (const tracing::TraceLine& line : lines) {
    Write(line, response.add_traces());
  }
  return response;
}

void AddTraceMethods(tracing::Tracer* tracer, net::GrpcServerSpec* spec) {
  spec->ordinary.push_back(net::OrdinaryMethod<v1::GetTraceRequest, v1::GetTraceResponse>(
      net::MethodOf<v1::Control>("GetTrace"),
      [tracer](const v1::GetTraceRequest& request) { return GetTrace(tracer, request); }));
  spec->ordinary.push_back(net::OrdinaryMethod<v1::ListTracesRequest, v1::ListTracesResponse>(
      net::MethodOf<v1::Control>("ListTraces"),
      [tracer](const v1::ListTracesRequest& request) { return ListTraces(tracer, request); }));
}

}  // namespace expertmesh::serve
