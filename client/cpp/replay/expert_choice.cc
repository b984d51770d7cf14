#include "client/cpp/replay/expert_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/base/check.h"

namespace expertmesh::replay {

void Choose(absl::Span<const double> log_weights, uint32_t top_k, ExpertChoice* choice) {
  const size_t experts = log_weights.size();
  EXPERTMESH_CHECK(top_k >= 1 && top_k <= experts);
  choice->chance.assign(experts, 1);
  choice->density.assign(experts, 0);
  if (top_k == experts) {
    return;
  }
  // Arrival times are exponential with these rates, and those before `threshold` are chosen.
  std::vector<double>& rates = choice->density;
  const double largest = *std::max_element(log_weights.begin(), log_weights.end());
  for (size_t i = 0; i < experts; ++i) {
    rates[i] = std::exp(log_weights[i] - largest);
  }
  // How many are chosen grows with the threshold, more and more slowly: Newton's steps come from
  // below and never pass the root.
  double threshold = top_k / std::accumulate(rates.begin(), rates.end(), 0.0);
  for (int step = 0; step < 100; ++step) {
    double chosen = 0;
    double slope = 0;
    for (const double rate : rates) {
      const double later = std::exp(-threshold * rate);
      chosen += 1 - later;
      slope += rate * later;
    }
    const double missing = top_k - chosen;
    if (missing < 1e-9 * top_k || slope < 1e-300) {
      break;
    }
    threshold += missing / slope;
  }
  for (size_t i = 0; i < experts; ++i) {
    const double arrivals = threshold * rates[i];
    const double later = std::exp(-arrivals);
    choice->chance[i] = 1 - later;
    choice->density[i] = arrivals * later;
  }
}

// Two experts on both sides of the threshold change places when the bias moves them past each
// other: as often as both are near it, times how far they are moved apart.
double ChangedShare(const ExpertChoice& without, const ExpertChoice& with,
                    absl::Span<const double> bias_in_logits) {
  const size_t experts = bias_in_logits.size();
  EXPERTMESH_CHECK(without.density.size() == experts && with.density.size() == experts);
  std::vector<uint32_t> order(experts);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return bias_in_logits[a] != bias_in_logits[b] ? bias_in_logits[a] < bias_in_logits[b] : a < b;
  });
  double pairs = 0;
  double density = 0;
  double density_times_bias = 0;
  for (const uint32_t expert : order) {
    const double here = (without.density[expert] + with.density[expert]) / 2;
    const double bias = bias_in_logits[expert];
    pairs += here * (bias * density - density_times_bias);
    density += here;
    density_times_bias += here * bias;
  }
  return density <= 0 ? 0 : 1 - std::exp(-pairs / density);
}

double BatchViolation(absl::Span<const double> chance, absl::Span<const double> noise,
                      double tokens) {
  double sum = 0;
  double largest = 0;
  for (size_t i = 0; i < chance.size(); ++i) {
    const double deviation = std::sqrt(tokens * chance[i] * (1 - chance[i]));
    largest = std::max(largest, tokens * chance[i] + noise[i] * deviation);
    sum += tokens * chance[i];
  }
  return sum <= 0 ? 0 : std::max(0.0, largest * static_cast<double>(chance.size()) / sum - 1);
}

}  // namespace expertmesh::replay
