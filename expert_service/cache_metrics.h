// Metrics of a node that keeps a part of its experts in memory.
#ifndef EXPERTMESH_EXPERT_SERVICE_CACHE_METRICS_H_
#define EXPERTMESH_EXPERT_SERVICE_CACHE_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"
#include "common/telemetry/metrics.h"
#include "expert_service/metric_table.h"

namespace expertmesh::node {

// Thread-safe. Each member is an entry of the table, where name, help and labels stand.
class CacheMetrics {
 public:
  CacheMetrics(prometheus::Registry& registry, uint64_t limit_bytes);

  // A batch named so many experts that were there, and that were not.
  void CountUses(size_t hits, size_t misses) {
    hits_.Increment(static_cast<double>(hits));
    misses_.Increment(static_cast<double>(misses));
  }
  void CountLoaded(uint64_t bytes) { loaded_bytes_.Increment(static_cast<double>(bytes)); }
  void RecordStall(absl::Duration stall) { stall_seconds_.Observe(stall); }
  void SetResident(uint64_t bytes) { resident_bytes_.Set(static_cast<double>(bytes)); }

 private:
  prometheus::Counter& hits_;
  prometheus::Counter& misses_;
  prometheus::Counter& loaded_bytes_;
  telemetry::Histogram stall_seconds_;
  prometheus::Gauge& resident_bytes_;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_CACHE_METRICS_H_
