// Which experts the tokens of a group go to and with what weights, from their logits: every option
// of RoutingOptions but the random ones, written from the formulas and not from the gate.
#ifndef EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_ROUTING_H_
#define EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_ROUTING_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/model/routing_options.h"
#include "common/tensor/dtype.h"

namespace expertmesh::reference {

// The experts of one token, and what their outputs (or inputs) are multiplied with.
struct TokenExperts {
  std::vector<uint32_t> expert_ids;
  std::vector<float> weights;
};

// How one token is routed: best expert first, the lower index first among equals.
struct ReferenceRouting : TokenExperts {
  // Experts that it was to go to and that had no room left.
  std::vector<uint32_t> dropped;
  // How much the nearest decision was won by, in units of what is compared (score plus bias, rank
  // of a group): the last chosen ahead of the first left out. Small: another way of rounding may
  // decide differently. Infinite when there was nothing to decide. Where tokens of a group compete
  // (RoutingOptions::looks_at_groups), the smallest of the group.
  float margin = 0.0f;
  // The margin is exactly 0: the lower index won.
  bool tie = false;
};

// Empty when the routing follows from logits and token ids alone; otherwise what makes it random,
// such as "noise = gumbel", which nothing outside of the router can repeat.
std::string RandomPart(const RoutingOptions& routing);

// What routing knows of a layer and a group of tokens.
struct ReferenceGroup {
  // [tokens, num_experts]: the gate's product plus its logit bias, not rounded yet.
  absl::Span<const float> logits;
  // [num_experts]; not read unless routing.select_bias.
  absl::Span<const float> select_bias = {};
  // [tokens]; not read unless routing.choice is kHash.
  absl::Span<const uint32_t> token_ids = {};
  // What kModel rounds to: the type that the activations have.
  Dtype activation_dtype = Dtype::kF32;
};

// One for each token. `routing` has no random part and could be served (ValidateRouting).
std::vector<ReferenceRouting> RouteReference(const RoutingOptions& routing,
                                             const ReferenceGroup& group);

// Whether logits that differ from the group's in their last bits only lead to exactly these experts
// (`reported`, one for each token): if so, another order of summation explains the difference.
bool RoundingExplains(const RoutingOptions& routing, const ReferenceGroup& group,
                      absl::Span<const ReferenceRouting> routed,
                      absl::Span<const TokenExperts> reported);

}  // namespace expertmesh::reference

#endif  // EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_ROUTING_H_
