#include "router_service/batch/stage_record.h"

#include "router_service/metrics/router_metrics.h"

namespace expertmesh::batch {

void RecordStages(const Batch& batch) {
  const metrics::RouterMetrics& metrics = *batch.environment->metrics;
  const StageTimes& times = batch.times;
  metrics.route_seconds.Observe(times.routed - times.closed);
  metrics.plan_seconds.Observe(times.dispatched - times.routed);
  metrics.experts_seconds.Observe(times.received - times.dispatched);
  metrics.combine_seconds.Observe(batch.environment->clock->Now() - times.received);
}

}  // namespace expertmesh::batch
