#include "common/gate/routing_steps.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "common/gate/capacity.h"
#include "common/gate/row_kernels.h"

namespace expertmesh::gate {
namespace {

template <typename T>
void GrowTo(std::vector<T>* buffer, size_t size) {
  if (buffer->size() < size) {
    buffer->resize(size);
  }
}

// Rank of every group, larger is better. A NaN in a group makes it the best.
void ScoreGroups(GroupScore score, absl::Span<const float> choice, absl::Span<float> groups) {
  const size_t size = choice.size() / groups.size();
  if (score == GroupScore::kTopTwoSum) {
    BestRowKernels().top_two_sums(choice.data(), groups.size(), size, groups.data());
    return;
  }
  for (size_t group = 0; group < groups.size(); ++group) {
    float best = choice[group * size];
    for (const float value : choice.subspan(group * size, size)) {
      best = value > best || std::isnan(value) ? value : best;
    }
    groups[group] = best;
  }
}

}  // namespace

void ScoreRow(ScoreFunction score, float* row, size_t count) {
  switch (score) {
    case ScoreFunction::kIdentity:
      return;
    case ScoreFunction::kSoftmax:
      return BestRowKernels().softmax(row, count);
    case ScoreFunction::kSigmoid:
      return BestRowKernels().sigmoid(row, count);
    case ScoreFunction::kSqrtSoftplus:
      for (size_t i = 0; i < count; ++i) {
        // ln(1 + e^z) without overflow.
        row[i] = std::sqrt(std::max(row[i], 0.0f) + std::log1p(std::exp(-std::fabs(row[i]))));
      }
      return;
  }
}

void AddSelectBias(absl::Span<const float> scores, absl::Span<const float> bias,
                   absl::Span<float> choice) {
  EXPERTMESH_CHECK(bias.size() == scores.size() && choice.size() == scores.size());
  for (size_t expert = 0; expert < scores.size(); ++expert) {
    choice[expert] = scores[expert] + bias[expert];
  }
}

void LimitGroups(const RoutingOptions& options, float masked, TieOrder ties,
                 absl::Span<float> choice, TokenScratch* scratch) {
  if (options.topk_group == options.n_group) {
    return;
  }
  GrowTo(&scratch->group_scores, options.n_group);
  GrowTo(&scratch->kept_groups, options.topk_group);
  scratch->group_is_kept.assign(options.n_group, 0);
  const absl::Span<float> groups(scratch->group_scores.data(), options.n_group);
  const absl::Span<uint32_t> kept(scratch->kept_groups.data(), options.topk_group);
  ScoreGroups(options.group_score, choice, groups);
  SelectTopK(groups, ties, /*sorted=*/false, &scratch->selection, kept);
  for (const uint32_t group : kept) {
    scratch->group_is_kept[group] = 1;
  }
  const size_t size = choice.size() / options.n_group;
  for (size_t group = 0; group < options.n_group; ++group) {
    if (scratch->group_is_kept[group] == 0) {
      std::fill_n(choice.begin() + group * size, size, masked);
    }
  }
}

void SampleSecondExperts(const RandomSource& random, const RandomKey& key, TieOrder ties,
                         absl::Span<const float> logits, TokenScratch* scratch,
                         absl::Span<uint32_t> ids) {
  GrowTo(&scratch->choice, PaddedRow(logits.size()));
  const absl::Span<float> sampled(scratch->choice.data(), logits.size());
  for (uint32_t expert = 0; expert < logits.size(); ++expert) {
    sampled[expert] = logits[expert] + Gumbel(random, RandomUse::kSecondExpert, key, expert);
  }
  // The first expert leaves the row, and the last one takes its place.
  const uint32_t first = ids[0];
  std::swap(sampled[first], sampled[logits.size() - 1]);
  const absl::Span<uint32_t> others = ids.subspan(1);
  SelectTopK(sampled.first(logits.size() - 1), ties, true, &scratch->selection, others);
  for (uint32_t& expert : others) {
    expert = expert == first ? static_cast<uint32_t>(logits.size() - 1) : expert;
  }
}

void KeepSecondExpertsAtRandom(float threshold, const RandomSource& random, const RandomKey& key,
                               absl::Span<const float> weights, absl::Span<uint32_t> ids) {
  for (uint32_t slot = 1; slot < ids.size(); ++slot) {
    if (!(random.Uniform(RandomUse::kSecondExpert, key, slot) < weights[slot] / threshold)) {
      ids[slot] = kNoExpert;
    }
  }
}

}  // namespace expertmesh::gate
