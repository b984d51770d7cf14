// What a node has computed, by layer and expert, for metrics.
#ifndef EXPERTMESH_EXPERT_SERVICE_COMPUTED_COUNTS_H_
#define EXPERTMESH_EXPERT_SERVICE_COMPUTED_COUNTS_H_

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "common/telemetry/expert_series.h"

namespace expertmesh::node {

// Exact by layer, and of the experts those that the options let through. Thread-safe.
class ComputedCounts final : public prometheus::Collectable {
 public:
  // `clock` must outlive it.
  ComputedCounts(const telemetry::ExpertMetricsOptions& options, Clock* clock);

  // From now on they count, from 0 on.
  void AddExperts(uint32_t layer, absl::Span<const uint32_t> experts);
  // `assignments`: by expert. Allocates nothing for experts that were added.
  void Add(uint32_t layer, absl::Span<const uint64_t> assignments);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  // By expert; none where it was never held.
  using Layer = std::vector<std::optional<uint64_t>>;

  mutable absl::Mutex mutex_;
  std::map<uint32_t, Layer> layers_ ABSL_GUARDED_BY(mutex_);
  mutable telemetry::ExpertSeries experts_;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_COMPUTED_COUNTS_H_
