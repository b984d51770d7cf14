// One MoE layer, computed the simple way: what the mesh's answers are checked against. It shares
// the checkpoint reader with the services and nothing else; routing and expert math are written
// here a second time, with plain loops.
#ifndef EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_MOE_H_
#define EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_MOE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/model/model_description.h"
#include "common/tensor/dtype.h"

namespace expertmesh {

struct ReferenceOptions {
  // Round logits and weights to the model's dtype where the family does (LogitDType::kModel,
  // WeightDType::kModel). Without it everything is float32.
  bool round_like_model = true;
  // Threads to use; 0: one per core.
  int threads = 0;
};

// How one token is routed.
struct ReferenceRouting {
  // By falling choice, the lower index first among equals; top_k of each.
  std::vector<uint32_t> expert_ids;
  std::vector<float> weights;
  // How much the last chosen expert (or group) is ahead of the first one left out, in units of the
  // choice (score plus bias). Small: another way of rounding may choose differently. Infinite when
  // nothing was left out.
  float margin = 0.0f;
  // The margin is exactly 0: the lower index won.
  bool tie = false;
};

// Routes one token by its logits. `select_bias` has num_experts values when
// routing.select_bias, and is ignored otherwise. `model_dtype` is what kModel rounds to.
ReferenceRouting RouteReference(const RoutingOptions& routing, DType model_dtype,
                                absl::Span<const float> logits, absl::Span<const float> select_bias,
                                bool round_like_model = true);

struct ReferenceOutput {
  std::vector<float> output;         // [tokens, d_model], shared experts included.
  std::vector<uint32_t> expert_ids;  // [tokens, top_k]
  std::vector<float> weights;        // [tokens, top_k]
  std::vector<float> margins;        // [tokens]
  size_t ties = 0;                   // Tokens with a tie.
};

// The output of one MoE layer for `hidden` [tokens, d_model]. Holds one expert per thread as
// float32, and one row of output per assignment. The result does not depend on `threads`.
//   NOT_FOUND         `layer` is not a MoE layer.
//   INVALID_ARGUMENT  hidden.size() is not tokens * d_model.
absl::StatusOr<ReferenceOutput> ReferenceForward(const MoeCheckpoint& checkpoint, uint32_t layer,
                                                 absl::Span<const float> hidden, size_t tokens,
                                                 const ReferenceOptions& options = {});

}  // namespace expertmesh

#endif  // EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_MOE_H_
