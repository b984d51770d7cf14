#include "router_service/metrics_flags.h"

#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "common/base/status_macros.h"
#include "router_service/trace_metrics.h"

ABSL_FLAG(std::string, metrics_listen, "0.0.0.0:9464",
          "Address of GET /metrics and of the console; port 0 picks one, empty turns it off");
ABSL_FLAG(
    std::string, expert_metrics, "top",
    "Experts with a series of their own at GET /metrics: full (all), top (the busiest of each "
    "layer, of late) or off; GET /load.json and /load.csv have all in any case");
ABSL_FLAG(uint64_t, expert_metrics_top, 8, "How many of each layer with --expert-metrics=top");

namespace expertmesh::router {

absl::StatusOr<telemetry::ExpertMetricsOptions> ExpertMetricsFromFlags() {
  return telemetry::ParseExpertMetrics(absl::GetFlag(FLAGS_expert_metrics),
                                       absl::GetFlag(FLAGS_expert_metrics_top));
}

absl::StatusOr<std::unique_ptr<telemetry::MetricsServer>> StartMetrics(
    std::shared_ptr<prometheus::Registry> registry, const Tracing* tracing, Router* router,
    const console::Console* console) {
  std::unique_ptr<telemetry::MetricsServer> metrics;
  if (const std::string address = absl::GetFlag(FLAGS_metrics_listen); !address.empty()) {
    ASSIGN_OR_RETURN(metrics, telemetry::MetricsServer::Start(address, std::move(registry)));
    metrics->Add(std::make_shared<const TraceMetrics>(tracing));
    router->AddTo(metrics.get());
    console->AddTo(&metrics->http());
  }
  return metrics;
}

}  // namespace expertmesh::router
