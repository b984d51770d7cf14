// Which experts a token goes to and with what weights, from its gate logits. Every model family and
// every router of the literature is a point in RoutingOptions; the steps below read it and are
// applied in this order:
//
//   temperature -> noise -> score -> bias -> group limit -> choice -> weights -> second expert
//          -> renormalise -> capacity -> (renormalise after drop) -> scale -> weight dtype
//
// Everything up to the capacity is done token by token; expert choice and capacity look at the
// tokens of one group of one request. Each step is a free function (in routing_steps.h,
// noise.h, sparse_mixer.h, capacity.h, expert_choice.h and weights.h), so that a family's odd
// corner is a test of one step.
//
// Arithmetic is float32, rounded where the options say that the family rounds. Whatever the logits
// (NaN, Inf), every token gets distinct valid experts: NaN counts as the largest value, as in
// torch, so a token of NaN goes to the lowest indices with NaN as weight, and the caller sees it in
// the output instead of a crash.
#ifndef EXPERTMESH_COMMON_GATE_ROUTING_H_
#define EXPERTMESH_COMMON_GATE_ROUTING_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/gate/capacity.h"
#include "common/gate/expert_choice.h"
#include "common/gate/noise.h"
#include "common/gate/routed_tokens.h"
#include "common/gate/routing_steps.h"
#include "common/gate/select_bias.h"
#include "common/gate/selection.h"
#include "common/gate/validate_routing.h"
#include "common/model/routing_options.h"
#include "common/tensor/dtype.h"

namespace expertmesh::gate {

// Working memory, reused between calls: after the largest batch was seen nothing is allocated. One
// per thread; contents mean nothing between calls.
struct RoutingScratch {
  TokenScratch token;
  // Scores and choices of all tokens; used only where experts have a capacity.
  std::vector<float> best_scores;
  std::vector<float> all_scores;
  std::vector<float> all_choices;
  CapacityScratch capacity;
  ExpertChoiceScratch expert_choice;
};

struct RoutingInput {
  // Requests of the batch; `tokens` is the sum of theirs. Each passes CheckRequestTokens.
  absl::Span<const RequestTokens> requests;
  // [tokens, num_experts]; not read with Choice::kHash, may be empty then.
  absl::Span<const float> logits;
  // The checkpoint's: read only when options.select_bias. A live one: with Choice::kTopK.
  SelectBias select_bias = {};
  // [tokens, num_experts] What the noise weight makes of the tokens; Noise::kLearnedNormal only.
  absl::Span<const float> noise_width = {};
};

// What is the same for every batch of a layer. `options` pass ValidateRouting.
struct RoutingRules {
  RoutingOptions options;
  TieOrder ties = TieOrder::kLowestIndex;
  // What activations are computed in: kModel of ScoreDtype and WeightDtype rounds to it, and
  // (LogitDtype::kModel) the sparse mixer.
  Dtype activation_dtype = Dtype::kF32;
  const RandomSource* random = &CounterRandom();
};

// Routes all tokens of `input`; overwrites `routed`. Slots are best first (kTorchCpu: torch's
// order). A request's result does not depend on the others. Spans must have the sizes above. Linear
// in tokens * num_experts, but for the sorts of capacity.h. Thread-safe with a scratch per thread.
void RouteTokens(const RoutingRules& rules, const RoutingInput& input, RoutingScratch* scratch,
                 RoutedTokens* routed);

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_ROUTING_H_
