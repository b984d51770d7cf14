// What metrics cost a request: everything that a router counts for one token that is alone in its
// batch and goes to two nodes.
#include <benchmark/benchmark.h>

#include <vector>

#include "absl/time/clock.h"
#include "common/telemetry/grpc_server_metrics.h"
#include "common/trace/trace_context.h"
#include "router_service/metrics/router_metrics.h"

namespace expertmesh::metrics {
namespace {

constexpr int kNodes = 2;

// In the order of admission.cc, gather_stage.cc, plan_stage.cc, stage_record.cc and so on.
// `traced`: the request is sampled, so that it is an exemplar.
void CountRequest(bool traced, absl::Time now, RouterMetrics* metrics,
                  std::vector<RouterMetrics::NodeSeries>* nodes) {
  const absl::Duration stage = absl::Microseconds(70);
  metrics->tokens.Increment(1);
  metrics->tokens_in_flight.Set(1);
  metrics->queue_seconds.Observe(stage);
  metrics->nonfinite_tokens.Increment(0);
  metrics->batch_requests.Observe(1);
  metrics->batch_tokens.Observe(1);
  metrics->batch_nodes.Observe(kNodes);
  metrics->planned_tokens.Increment(1);
  metrics->token_transfers.Increment(kNodes);
  metrics->uniform_token_transfers.Increment(kNodes);
  const trace::TraceContext span{{1, 2}, 3, traced ? trace::kSampledFlag : uint8_t{0}};
  const auto observe = [&](telemetry::TracedHistogram& histogram) {
    if (traced) {
      histogram.Observe(stage, span, now);
    } else {
      histogram.Observe(stage);
    }
  };
  for (RouterMetrics::NodeSeries& node : *nodes) {
    node.sent_bytes.Increment(4096);
    node.received_bytes.Increment(4096);
    observe(node.call_seconds);
  }
  observe(metrics->route_seconds);
  observe(metrics->plan_seconds);
  observe(metrics->experts_seconds);
  observe(metrics->combine_seconds);
  metrics->CountRequest(absl::StatusCode::kOk);
  observe(metrics->request_seconds);
  metrics->tokens_in_flight.Set(0);
}

void BM_Request(benchmark::State& state) {
  prometheus::Registry registry;
  RouterMetrics metrics(registry);
  telemetry::GrpcServerMetrics calls(registry);
  MethodCounter* const method = calls.Method("/expertmesh.v1.Router/Forward", /*streams=*/false);
  std::vector<RouterMetrics::NodeSeries> nodes = {metrics.TakeNode("10.0.0.7:50061", {}),
                                                  metrics.TakeNode("10.0.0.8:50061", {})};
  const absl::Time now = absl::Now();
  for (auto unused : state) {
    method->Started();
    CountRequest(state.range(0) != 0, now, &metrics, &nodes);
    method->Handled(absl::StatusCode::kOk, absl::Microseconds(300));
  }
}
BENCHMARK(BM_Request)->ArgName("sampled")->Arg(0)->Arg(1);

}  // namespace
}  // namespace expertmesh::metrics
