#include "router_service/batch/stage_record.h"

#include "absl/time/clock.h"
#include "router_service/batch/trace_stage.h"
#include "router_service/metrics/router_metrics.h"

namespace expertmesh::batch {

void RecordStages(const Batch& batch) {
  const metrics::RouterMetrics& metrics = *batch.environment->metrics;
  const StageTimes& times = batch.times;
  // A trace that is not kept for sure is no exemplar.
  const trace::TraceContext span = TraceOf(batch);
  const trace::TraceContext kept = span.sampled() ? span : trace::TraceContext();
  const absl::Time now = kept.valid() ? absl::Now() : absl::InfinitePast();
  metrics.route_seconds.Observe(times.routed - times.closed, kept, now);
  metrics.plan_seconds.Observe(times.dispatched - times.routed, kept, now);
  metrics.experts_seconds.Observe(times.received - times.dispatched, kept, now);
  metrics.combine_seconds.Observe(batch.environment->clock->Now() - times.received, kept, now);
}

}  // namespace expertmesh::batch
