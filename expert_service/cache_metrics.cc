#include "expert_service/cache_metrics.h"

namespace expertmesh::node {

CacheMetrics::CacheMetrics(prometheus::Registry& registry, uint64_t limit_bytes)
    : hits_(telemetry::RegisterCounter(registry, table::kCacheHitsTotal)),
      misses_(telemetry::RegisterCounter(registry, table::kCacheMissesTotal)),
      loaded_bytes_(telemetry::RegisterCounter(registry, table::kCacheLoadedBytesTotal)),
      stall_seconds_(telemetry::RegisterHistogram(registry, table::kCacheStallSeconds,
                                                  telemetry::DurationBuckets())),
      resident_bytes_(telemetry::RegisterGauge(registry, table::kCacheResidentBytes)) {
  telemetry::RegisterGauge(registry, table::kCacheLimitBytes).Set(static_cast<double>(limit_bytes));
}

}  // namespace expertmesh::node
