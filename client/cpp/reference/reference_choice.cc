#include "client/cpp/reference/reference_choice.h"

#include <algorithm>
#include <cmath>

#include "client/cpp/reference/reference_scores.h"

namespace expertmesh::reference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float GroupRank(GroupScore score, absl::Span<const float> choices) {
  const Largest top = SelectLargest(choices, score == GroupScore::kMax ? 1 : 2);
  float rank = 0.0f;
  for (const uint32_t id : top.ids) {
    rank += choices[id];
  }
  return rank;
}

}  // namespace

Largest SelectLargest(absl::Span<const float> values, size_t count) {
  Largest largest;
  std::vector<bool> taken(values.size(), false);
  const auto best_left = [&] {
    size_t best = values.size();
    for (size_t i = 0; i < values.size(); ++i) {
      if (!taken[i] && (best == values.size() || values[i] > values[best])) {
        best = i;
      }
    }
    return best;
  };
  for (size_t n = 0; n < std::min(count, values.size()); ++n) {
    const size_t best = best_left();
    taken[best] = true;
    largest.ids.push_back(static_cast<uint32_t>(best));
  }
  const size_t left_out = best_left();
  if (left_out < values.size() && !largest.ids.empty()) {
    largest.margin = values[largest.ids.back()] - values[left_out];
  }
  return largest;
}

float LimitGroups(const RoutingOptions& routing, std::vector<float>* choices) {
  if (routing.topk_group >= routing.n_group) {
    return kInfinity;
  }
  const size_t size = routing.num_experts / routing.n_group;
  std::vector<float> ranks;
  for (size_t group = 0; group < routing.n_group; ++group) {
    ranks.push_back(
        GroupRank(routing.group_score, absl::MakeConstSpan(*choices).subspan(group * size, size)));
  }
  const Largest kept = SelectLargest(ranks, routing.topk_group);
  for (size_t expert = 0; expert < choices->size(); ++expert) {
    if (std::find(kept.ids.begin(), kept.ids.end(), expert / size) == kept.ids.end()) {
      (*choices)[expert] = routing.masked_choice;
    }
  }
  return kept.margin;
}

SparseMix MixSparsely(const RoutingOptions& routing, Dtype rounding,
                      absl::Span<const float> logits) {
  const auto rounded = [rounding](float value) { return RoundReference(rounding, value); };
  const float limit = rounded(2.0f * routing.sparse_mixer_epsilon);
  SparseMix mix;
  mix.margin = kInfinity;
  std::vector<float> left(logits.begin(), logits.end());
  for (int pass = 0; pass < 2; ++pass) {
    const Largest top = SelectLargest(left, 1);
    const uint32_t best = top.ids[0];
    mix.margin = std::min(mix.margin, top.margin);
    std::vector<float> near = left;
    for (size_t expert = 0; expert < near.size(); ++expert) {
      // The expert of the first pass is out of the second; all others are measured as they were.
      if (left[expert] == -kInfinity) {
        continue;
      }
      const float factor = std::max(std::fabs(logits[expert]), logits[best]);
      const float behind = rounded(rounded(logits[best] - logits[expert]) / factor);
      if (behind > limit) {
        near[expert] = -kInfinity;
      }
      if (expert != best && !std::isnan(behind)) {
        // What rounding may do to the comparison is not a distance.
        const float unsure = rounding == Dtype::kF32 ? 0.0f : std::fabs(limit) * 0.016f;
        mix.margin = std::min(mix.margin, std::max(std::fabs(behind - limit) - unsure, 0.0f));
      }
    }
    mix.ids.push_back(best);
    mix.weights.push_back(rounded(ReferenceScores(ScoreFunction::kSoftmax, std::move(near))[best]));
    left[best] = -kInfinity;
  }
  return mix;
}

}  // namespace expertmesh::reference
