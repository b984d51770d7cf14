#include "router_service/batch/stage_record.h"

#include "absl/time/clock.h"
#include "router_service/metrics/router_metrics.h"

namespace expertmesh::batch {

void RecordStages(const Batch& batch) {
  const metrics::RouterMetrics& metrics = *batch.environment->metrics;
  const StageTimes& times = batch.times;
  const absl::Duration route = times.routed - times.closed;
  const absl::Duration plan = times.dispatched - times.routed;
  const absl::Duration experts = times.received - times.dispatched;
  const absl::Duration combine = batch.environment->clock->Now() - times.received;
  if (batch.lead != nullptr && batch.lead->trace().span.sampled()) {
    const trace::TraceContext& span = batch.lead->trace().span;
    const absl::Time now = absl::Now();
    metrics.route_seconds.Observe(route, span, now);
    metrics.plan_seconds.Observe(plan, span, now);
    metrics.experts_seconds.Observe(experts, span, now);
    metrics.combine_seconds.Observe(combine, span, now);
  } else {
    metrics.route_seconds.Observe(route);
    metrics.plan_seconds.Observe(plan);
    metrics.experts_seconds.Observe(experts);
    metrics.combine_seconds.Observe(combine);
  }
}

}  // namespace expertmesh::batch
