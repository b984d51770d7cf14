// The steps of routing that look at one token.
#ifndef EXPERTMESH_COMMON_GATE_ROUTING_STEPS_H_
#define EXPERTMESH_COMMON_GATE_ROUTING_STEPS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/gate/noise.h"
#include "common/gate/selection.h"
#include "common/model/routing_options.h"

namespace expertmesh::gate {

// Working memory; grows to the largest row seen, contents mean nothing between calls.
struct TokenScratch {
  std::vector<float> logits;
  std::vector<float> scores;
  std::vector<float> choice;
  std::vector<float> checkpoint_choice;
  std::vector<float> selected;
  std::vector<float> group_scores;
  std::vector<uint32_t> kept_groups;
  std::vector<uint8_t> group_is_kept;
  SelectionScratch selection;
};

// In place, over the first `count` of `row`, which has room for PaddedRow(count) floats.
void ScoreRow(ScoreFunction score, float* row, size_t count);

// choice = scores + bias; all of one size.
void AddSelectBias(absl::Span<const float> scores, absl::Span<const float> bias,
                   absl::Span<float> choice);

// Gives every expert outside the topk_group best groups `masked` as its choice.
void LimitGroups(const RoutingOptions& options, float masked, TieOrder ties,
                 absl::Span<float> choice, TokenScratch* scratch);

// SecondExpert::kSampled: replaces all but the first of `ids` by experts sampled from the logits
// with Gumbel noise.
void SampleSecondExperts(const RandomSource& random, const RandomKey& key, TieOrder ties,
                         absl::Span<const float> logits, TokenScratch* scratch,
                         absl::Span<uint32_t> ids);

// SecondExpert::kRandom: gives up each but the first expert with probability
// 1 - weight / threshold; its slot becomes kNoExpert.
void KeepSecondExpertsAtRandom(float threshold, const RandomSource& random, const RandomKey& key,
                               absl::Span<const float> weights, absl::Span<uint32_t> ids);

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_ROUTING_STEPS_H_
