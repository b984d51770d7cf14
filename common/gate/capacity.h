// Capacity: how many assignments of one group an expert accepts, and which.
#ifndef EXPERTMESH_COMMON_GATE_CAPACITY_H_
#define EXPERTMESH_COMMON_GATE_CAPACITY_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "common/gate/routed_tokens.h"
#include "common/model/routing_options.h"

namespace expertmesh::gate {

// In place of an expert: the slot is not used.
inline constexpr uint32_t kNoExpert = std::numeric_limits<uint32_t>::max();

// Assignments that an expert accepts from a group of `tokens`, at most `tokens`. The factor counts
// as the decimal number it was written as: 1.1 of 10 is 11. With kExpertChoice top_k counts as 1.
uint32_t CapacityOf(const RoutingOptions& options, size_t tokens);

// The assignments of one group, [tokens, top_k] token-major, as the tokens want them.
struct GroupSlots {
  // Token of the batch that the first row is.
  size_t first_token = 0;
  // In and out; kNoExpert is a slot that is not used.
  absl::Span<uint32_t> expert_ids;
  absl::Span<float> weights;
  // [tokens] Best score of each token; kBatchPrioritised only.
  absl::Span<const float> best_scores = {};
  // [tokens, num_experts] Scores, and what experts are chosen by; kNextBest only. An expert whose
  // choice is minus infinity is not taken.
  absl::Span<const float> scores = {};
  absl::Span<const float> choices = {};
};

// Working memory; contents mean nothing between calls.
struct CapacityScratch {
  std::vector<uint32_t> load;
  std::vector<uint32_t> order;
  std::vector<uint32_t> wanted;
};

// Empties the slots that find no room (kNextBest: gives them another expert with its score as
// weight), and appends to `dropped` what was lost; adds to `mass`, unless that is null, what the gate
// had given it. Linear in the slots, but for sorting them
// (kBatchPrioritised, kScore).
void LimitCapacity(const RoutingOptions& options, const GroupSlots& group, CapacityScratch* scratch,
                   std::vector<DroppedAssignment>* dropped, double* mass = nullptr);

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_CAPACITY_H_
