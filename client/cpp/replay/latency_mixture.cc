#include "client/cpp/replay/latency_mixture.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace expertmesh::replay {
namespace {

// Deviations beyond which a normal number is not looked for.
constexpr double kFar = 6;

}  // namespace

void LatencyMixture::AddLayer(absl::Span<const NodeTime> nodes) {
  double slowest = 0;
  for (const NodeTime& node : nodes) {
    slowest = std::max(slowest, node.mean_us - kFar * node.deviation_us);
  }
  std::vector<NodeTime> kept;
  for (const NodeTime& node : nodes) {
    if (node.mean_us + kFar * node.deviation_us >= slowest) {
      kept.push_back(node);
    }
  }
  if (!kept.empty()) {
    layers_.push_back(std::move(kept));
  }
}

double LatencyMixture::ShareWithin(double time_us) const {
  double sum = 0;
  for (const std::vector<NodeTime>& nodes : layers_) {
    double all = 1;
    for (const NodeTime& node : nodes) {
      if (node.deviation_us > 0) {
        all *= std::erfc((node.mean_us - time_us) / node.deviation_us / std::sqrt(2.0)) / 2;
      } else if (node.mean_us > time_us) {
        all = 0;
      }
      if (all < 1e-12) {
        break;
      }
    }
    sum += all;
  }
  return sum / static_cast<double>(layers_.size());
}

double LatencyMixture::Quantile(double share) const {
  double low = 0;
  double high = 0;
  for (const std::vector<NodeTime>& nodes : layers_) {
    for (const NodeTime& node : nodes) {
      high = std::max(high, node.mean_us + kFar * node.deviation_us);
    }
  }
  for (int step = 0; step < 40 && high - low > 1e-4 * high; ++step) {
    const double middle = (low + high) / 2;
    (ShareWithin(middle) < share ? low : high) = middle;
  }
  return high;
}

}  // namespace expertmesh::replay
