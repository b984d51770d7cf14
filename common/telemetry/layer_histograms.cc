#include "common/telemetry/layer_histograms.h"

#include <cmath>
#include <string>
#include <utility>

namespace expertmesh::telemetry {

LayerHistograms::LayerHistograms(prometheus::Registry& registry, const HistogramInfo& info,
                                 prometheus::Labels labels,
                                 prometheus::Histogram::BucketBoundaries bounds)
    : family_(prometheus::BuildHistogram().Name(info.name).Help(info.help).Register(registry)),
      labels_(std::move(labels)),
      bounds_(std::move(bounds)) {}

void LayerHistograms::Observe(uint32_t layer, double value) {
  if (!std::isfinite(value)) {
    return;
  }
  prometheus::Histogram* histogram = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    prometheus::Histogram*& known = of_layer_[layer];
    if (known == nullptr) {
      prometheus::Labels labels = labels_;
      labels["layer"] = std::to_string(layer);
      known = &family_.Add(labels, bounds_);
    }
    histogram = known;
  }
  histogram->Observe(value);
}

}  // namespace expertmesh::telemetry
