// Series by expert, kept few: a model has thousands of (layer, expert), which metrics stores and
// those who pay for them do not like.
#ifndef EXPERTMESH_COMMON_TELEMETRY_EXPERT_SERIES_H_
#define EXPERTMESH_COMMON_TELEMETRY_EXPERT_SERIES_H_

#include <prometheus/metric_family.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/telemetry/metric_info.h"

namespace expertmesh::telemetry {

// Which experts have a series.
enum class ExpertMetrics {
  kOff,
  kTop,   // The busiest of each layer.
  kFull,  // All.
};

struct ExpertMetricsOptions {
  ExpertMetrics mode = ExpertMetrics::kTop;
  // How many of each layer, with kTop.
  size_t top = 8;
};

// "off", "top" or "full"; INVALID_ARGUMENT otherwise.
absl::StatusOr<ExpertMetricsOptions> ParseExpertMetrics(absl::string_view mode, size_t top);

// Totals of one expert, which never shrink.
struct ExpertCount {
  uint32_t expert = 0;
  uint64_t count = 0;
};
// By layer; experts ascend.
using ExpertCounts = std::map<uint32_t, std::vector<ExpertCount>>;

// Chooses the series of one metric {layer,expert}. Busy is who got most within the last 10 to 20
// seconds; where that is the same, who got most in all. Thread-safe.
class ExpertSeries {
 public:
  // `info` and `clock` must outlive it.
  ExpertSeries(const CounterInfo* info, const ExpertMetricsOptions& options, Clock* clock);

  // For a scrape.
  prometheus::MetricFamily Collect(const ExpertCounts& totals);

 private:
  using Totals = std::map<std::pair<uint32_t, uint32_t>, uint64_t>;

  // The totals of some time ago, from which on load is of late.
  const Totals& Baseline(const ExpertCounts& totals) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CounterInfo* const info_;
  const ExpertMetricsOptions options_;
  Clock* const clock_;
  absl::Mutex mutex_;
  Totals before_ ABSL_GUARDED_BY(mutex_);
  Totals latest_ ABSL_GUARDED_BY(mutex_);
  absl::Time latest_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_EXPERT_SERIES_H_
