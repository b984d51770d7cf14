// One MoE layer, computed the simple way: what the mesh's answers are checked against. It shares
// the checkpoint reader with the services and nothing else; decoding of weights, routing and expert
// math are written here a second time, with plain loops.
#ifndef EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_MOE_H_
#define EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_MOE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cpp/reference/reference_routing.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/model/model_description.h"

namespace expertmesh::reference {

// Tokens of one layer.
struct ReferenceInput {
  absl::Span<const float> hidden;  // [tokens, d_model]
  size_t tokens = 0;
  // [tokens], or empty: needed for hash routing only.
  absl::Span<const uint32_t> token_ids = {};
  // Tokens of each group, in order, adding up to `tokens`. Empty: one group.
  absl::Span<const uint32_t> group_sizes = {};
};

struct ReferenceOptions {
  // What the layer to compare with has its activations in: where a family rounds (logits, scores,
  // weights, gates), it rounds to this type. In kF32 nothing is rounded.
  Dtype activation_dtype = Dtype::kF32;
  // Threads to use; 0: one per core.
  int threads = 0;
};

// How the tokens of one layer are routed, and from what.
struct ReferenceRoutes {
  // [tokens, num_experts], as ReferenceGroup::logits.
  std::vector<float> logits;
  // [num_experts] or empty.
  std::vector<float> select_bias;
  // One for each token.
  std::vector<ReferenceRouting> tokens;

  size_t ties() const;
};

// Routes by `routing`, which need not be the checkpoint's own.
//   NOT_FOUND            `layer` is not a MoE layer.
//   INVALID_ARGUMENT     sizes that do not fit.
//   FAILED_PRECONDITION  the routing is random; the message says what makes it so.
absl::StatusOr<ReferenceRoutes> RouteWithReference(const checkpoint::MoeCheckpoint& checkpoint,
                                                   uint32_t layer, const RoutingOptions& routing,
                                                   const ReferenceInput& input,
                                                   const ReferenceOptions& options = {});

// For each token, whether logits that differ in their last bits only lead to the experts that were
// `reported` for its group.
std::vector<bool> RoundingExplains(const RoutingOptions& routing, const ReferenceInput& input,
                                   const ReferenceRoutes& routes,
                                   absl::Span<const TokenExperts> reported,
                                   const ReferenceOptions& options);

// The layer's output [tokens, d_model], shared experts and what passes by included, for tokens that
// go to the experts of `chosen`, one for each token. Holds one expert per thread as float32, and
// one row of output per assignment. The result does not depend on `threads`.
//   NOT_FOUND         `layer` is not a MoE layer, or has no such expert.
//   INVALID_ARGUMENT  sizes that do not fit.
absl::StatusOr<std::vector<float>> ComputeWithReference(const checkpoint::MoeCheckpoint& checkpoint,
                                                        uint32_t layer,
                                                        const RoutingOptions& routing,
                                                        const ReferenceInput& input,
                                                        absl::Span<const TokenExperts> chosen,
                                                        const ReferenceOptions& options = {});

// The experts of each token alone.
std::vector<TokenExperts> ExpertsOf(absl::Span<const ReferenceRouting> routings);

}  // namespace expertmesh::reference

#endif  // EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_MOE_H_
