// What becomes of traces, for metrics.
#ifndef EXPERTMESH_ROUTER_SERVICE_TRACE_METRICS_H_
#define EXPERTMESH_ROUTER_SERVICE_TRACE_METRICS_H_

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <vector>

#include "router_service/trace_flags.h"

namespace expertmesh::router {

// Read at each scrape. Thread-safe.
class TraceMetrics final : public prometheus::Collectable {
 public:
  // `tracing` must outlive it.
  explicit TraceMetrics(const Tracing* tracing) : tracing_(tracing) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Tracing* const tracing_;
};

}  // namespace expertmesh::router

#endif  // EXPERTMESH_ROUTER_SERVICE_TRACE_METRICS_H_
