// Choice::kExpertChoice: experts choose tokens (Zhou et al. 2022).
#ifndef EXPERTMESH_COMMON_GATE_EXPERT_CHOICE_H_
#define EXPERTMESH_COMMON_GATE_EXPERT_CHOICE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/gate/routed_tokens.h"
#include "common/gate/selection.h"
#include "common/model/routing_options.h"

namespace expertmesh::gate {

// Working memory; contents mean nothing between calls.
struct ExpertChoiceScratch {
  std::vector<float> column;
  std::vector<uint32_t> chosen;
  std::vector<uint8_t> taken;
  std::vector<uint32_t> order;
};

// Routes one group: every expert takes the CapacityOf tokens with the highest scores for it (ties
// by `ties`). Appends each token's experts and scores to `routed`, the highest score first (the
// lower expert first among equals), and ends the token in token_begin.
//   scores  [tokens, num_experts]
void ChooseTokens(const RoutingOptions& options, TieOrder ties, absl::Span<const float> scores,
                  ExpertChoiceScratch* scratch, SelectionScratch* selection, RoutedTokens* routed);

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_EXPERT_CHOICE_H_
