#include "client/cpp/replay/latency_mixture.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace expertmesh::replay {
namespace {

// Deviations beyond which a normal number is not looked for.
constexpr double kFar = 6;

}  // namespace

void LatencyMixture::Add(double batches, absl::Span<const NodeTime> nodes) {
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
  if (batches > 0 && !kept.empty()) {
    kinds_.push_back({.batches = batches, .nodes = std::move(kept)});
    batches_ += batches;
  }
}

double LatencyMixture::ShareWithin(double time_us) const {
  double sum = 0;
  for (const Kind& kind : kinds_) {
    double all = 1;
    for (const NodeTime& node : kind.nodes) {
      if (node.deviation_us > 0) {
        all *= std::erfc((node.mean_us - time_us) / node.deviation_us / std::sqrt(2.0)) / 2;
      } else if (node.mean_us > time_us) {
        all = 0;
      }
      if (all < 1e-12) {
        break;
      }
    }
    sum += kind.batches * all;
  }
  return sum / batches_;
}

double LatencyMixture::Quantile(double share) const {
  double low = 0;
  double high = 0;
  for (const Kind& kind : kinds_) {
    for (const NodeTime& node : kind.nodes) {
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
