#include "common/telemetry/expert_series.h"

#include <algorithm>
#include <string>
#include <tuple>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/telemetry/metrics.h"

namespace expertmesh::telemetry {
namespace {

constexpr absl::Duration kOfLate = absl::Seconds(10);

}  // namespace

absl::StatusOr<ExpertMetricsOptions> ParseExpertMetrics(absl::string_view mode, size_t top) {
  if (mode == "off") {
    return ExpertMetricsOptions{ExpertMetrics::kOff, top};
  }
  if (mode == "top") {
    return ExpertMetricsOptions{ExpertMetrics::kTop, top};
  }
  if (mode == "full") {
    return ExpertMetricsOptions{ExpertMetrics::kFull, top};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--expert-metrics is '", mode, "'; use full, top or off"));
}

ExpertSeries::ExpertSeries(const CounterInfo* info, const ExpertMetricsOptions& options,
                           Clock* clock)
    : info_(info), options_(options), clock_(clock) {}

const ExpertSeries::Totals& ExpertSeries::Baseline(const ExpertCounts& totals) {
  const absl::Time now = clock_->Now();
  if (now - latest_at_ >= kOfLate) {
    before_ = std::move(latest_);
    latest_.clear();
    for (const auto& [layer, experts] : totals) {
      for (const ExpertCount& expert : experts) {
        latest_[{layer, expert.expert}] = expert.count;
      }
    }
    latest_at_ = now;
  }
  return before_;
}

prometheus::MetricFamily ExpertSeries::Collect(const ExpertCounts& totals) {
  prometheus::MetricFamily family = FamilyOf(*info_);
  if (options_.mode == ExpertMetrics::kOff) {
    return family;
  }
  const absl::MutexLock lock(&mutex_);
  const bool all = options_.mode == ExpertMetrics::kFull;
  const Totals* const baseline = all ? nullptr : &Baseline(totals);
  for (const auto& [layer, experts] : totals) {
    std::vector<ExpertCount> shown = experts;
    if (!all && shown.size() > options_.top) {
      const auto of_late = [&, layer = layer](const ExpertCount& expert) {
        const auto found = baseline->find({layer, expert.expert});
        return found == baseline->end() ? expert.count : expert.count - found->second;
      };
      std::stable_sort(shown.begin(), shown.end(), [&](const ExpertCount& a, const ExpertCount& b) {
        return std::make_tuple(of_late(a), a.count) > std::make_tuple(of_late(b), b.count);
      });
      shown.resize(options_.top);
    }
    for (const ExpertCount& expert : shown) {
      AddCounter(static_cast<double>(expert.count),
                 {{"layer", std::to_string(layer)}, {"expert", std::to_string(expert.expert)}},
                 &family);
    }
  }
  return family;
}

}  // namespace expertmesh::telemetry
