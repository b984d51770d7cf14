#include "expert_service/computed_counts.h"

#include <string>
#include <utility>

#include "common/telemetry/metrics.h"
#include "expert_service/metric_table.h"

namespace expertmesh::node {

ComputedCounts::ComputedCounts(const telemetry::ExpertMetricsOptions& options, Clock* clock)
    : experts_(&table::kTokensTotal, options, clock) {}

void ComputedCounts::AddExperts(uint32_t layer, absl::Span<const uint32_t> experts) {
  const absl::MutexLock lock(&mutex_);
  Layer& counts = layers_[layer];
  for (const uint32_t expert : experts) {
    if (counts.size() <= expert) {
      counts.resize(expert + 1);
    }
    counts[expert] = counts[expert].value_or(0);
  }
}

void ComputedCounts::Add(uint32_t layer, absl::Span<const uint64_t> assignments) {
  const absl::MutexLock lock(&mutex_);
  Layer& counts = layers_[layer];
  if (counts.size() < assignments.size()) {
    counts.resize(assignments.size());
  }
  for (size_t expert = 0; expert < assignments.size(); ++expert) {
    if (assignments[expert] > 0) {
      counts[expert] = counts[expert].value_or(0) + assignments[expert];
    }
  }
}

std::vector<prometheus::MetricFamily> ComputedCounts::Collect() const {
  telemetry::ExpertCounts counts;
  prometheus::MetricFamily layers = telemetry::FamilyOf(table::kLayerTokensTotal);
  {
    const absl::MutexLock lock(&mutex_);
    for (const auto& [layer, experts] : layers_) {
      uint64_t sum = 0;
      std::vector<telemetry::ExpertCount>& of_layer = counts[layer];
      for (uint32_t expert = 0; expert < experts.size(); ++expert) {
        if (experts[expert].has_value()) {
          of_layer.push_back({expert, *experts[expert]});
          sum += *experts[expert];
        }
      }
      telemetry::AddCounter(static_cast<double>(sum), {{"layer", std::to_string(layer)}}, &layers);
    }
  }
  return {std::move(layers), experts_.Collect(counts)};
}

}  // namespace expertmesh::node
