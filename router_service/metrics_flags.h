// The router's flags of metrics, and what they ask for.
#ifndef EXPERTMESH_ROUTER_SERVICE_METRICS_FLAGS_H_
#define EXPERTMESH_ROUTER_SERVICE_METRICS_FLAGS_H_

#include <prometheus/registry.h>

#include <memory>

#include "absl/status/statusor.h"
#include "common/telemetry/expert_series.h"
#include "common/telemetry/metrics.h"
#include "router_service/console/console.h"
#include "router_service/router.h"
#include "router_service/trace_flags.h"

namespace expertmesh::router {

absl::StatusOr<telemetry::ExpertMetricsOptions> ExpertMetricsFromFlags();

// Serves `registry`, what the others tell, and the console; null when that is turned off. What it
// is given must outlive it.
absl::StatusOr<std::unique_ptr<telemetry::MetricsServer>> StartMetrics(
    std::shared_ptr<prometheus::Registry> registry, const Tracing* tracing, Router* router,
    const console::Console* console);

}  // namespace expertmesh::router

#endif  // EXPERTMESH_ROUTER_SERVICE_METRICS_FLAGS_H_
