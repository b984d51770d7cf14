// Which experts a token goes to and with what weights, from its gate logits. Every model family is
// a point in RoutingOptions; the steps below read it and are applied to one token's row in this
// order:
//
//   score -> bias -> group limit -> top-k -> weights -> renormalise -> scale -> weight dtype
//
// All arithmetic is float32. Each step is a free function, so that a family's odd corner is a test
// of one step. Whatever the logits (NaN, Inf), every token gets top_k distinct valid experts: NaN
// counts as the largest value, as in torch, so a token of NaN goes to the lowest indices with NaN
// as weight, and the caller sees it in the output instead of a crash.
#ifndef EXPERTMESH_ROUTER_SERVICE_GATE_ROUTING_H_
#define EXPERTMESH_ROUTER_SERVICE_GATE_ROUTING_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/model/model_description.h"
#include "common/tensor/dtype.h"
#include "router_service/gate/selection.h"

namespace expertmesh {

// Working memory, reused between calls: after the largest model was seen nothing is allocated. One
// per thread; contents mean nothing between calls.
struct RoutingScratch {
  std::vector<float> scores;
  std::vector<float> choice;
  std::vector<float> selected;
  std::vector<float> group_scores;
  std::vector<uint32_t> kept_groups;
  std::vector<uint8_t> group_is_kept;
  SelectionScratch selection;
};

// INVALID_ARGUMENT naming the option, its value and what it must be, for combinations that cannot
// route every token to top_k experts. RouteTokens may be called with options that passed.
absl::Status ValidateRouting(const RoutingOptions& options);

// Routes `tokens` rows.
//   logits       [tokens, num_experts]
//   select_bias  [num_experts]; read only when options.select_bias, may be empty otherwise
//   expert_ids   out, [tokens, top_k], in order of selection: best first (kTorchCpu: torch's order)
//   weights      out, [tokens, top_k], of the same slots
// `model_dtype` is what WeightDType::kModel rounds to. A token's result does not depend on the
// others. Spans must have these sizes. Linear in tokens * num_experts. Thread-safe with a scratch
// per thread.
void RouteTokens(const RoutingOptions& options, TieOrder ties, DType model_dtype,
                 absl::Span<const float> logits, absl::Span<const float> select_bias, size_t tokens,
                 absl::Span<uint32_t> expert_ids, absl::Span<float> weights,
                 RoutingScratch* scratch);

// The steps, over one token.

// In place, over the first `count` of `row`, which has room for PaddedRow(count) floats.
void ScoreRow(ScoreFunction score, float* row, size_t count);

// choice = scores + bias; all of one size.
void AddSelectBias(absl::Span<const float> scores, absl::Span<const float> bias,
                   absl::Span<float> choice);

// Gives every expert outside the topk_group best groups options.masked_choice as its choice.
void LimitGroups(const RoutingOptions& options, TieOrder ties, absl::Span<float> choice,
                 RoutingScratch* scratch);

// Renormalises, scales and rounds one token's weights, in place.
void FinishWeights(const RoutingOptions& options, DType model_dtype, absl::Span<float> weights);

// Rounds each value to an activation type, in place.
void RoundTo(DType dtype, absl::Span<float> values);

}  // namespace expertmesh

#endif  // EXPERTMESH_ROUTER_SERVICE_GATE_ROUTING_H_
