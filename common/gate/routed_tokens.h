// What routing is asked about, and what it answers.
#ifndef EXPERTMESH_COMMON_GATE_ROUTED_TOKENS_H_
#define EXPERTMESH_COMMON_GATE_ROUTED_TOKENS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/model/routing_options.h"

namespace expertmesh::gate {

// The tokens of one request among those of its batch. Nothing about them depends on other requests.
struct RequestTokens {
  size_t tokens = 0;
  // Tokens of each group, in order; they add up to `tokens`. Empty: all are one group.
  absl::Span<const uint32_t> group_sizes = {};
  // [tokens], for Choice::kHash; may be empty otherwise.
  absl::Span<const uint32_t> token_ids = {};
  // Seeds everything random in routing.
  uint64_t seed = 0;
  // Experts are chosen with the checkpoint's bias, whatever bias is live.
  bool checkpoint_bias = false;
};

// INVALID_ARGUMENT naming group_sizes or token_ids when they do not fit the tokens, or when
// `options` need token_ids and there are none.
absl::Status CheckRequestTokens(const RoutingOptions& options, const RequestTokens& request);

// A token was to go to an expert that had no room left.
struct DroppedAssignment {
  uint32_t token = 0;
  uint32_t expert = 0;

  friend bool operator==(const DroppedAssignment&, const DroppedAssignment&) = default;
};

struct RoutedTokens {
  // [tokens + 1] Assignments of token t are [token_begin[t], token_begin[t + 1]): distinct experts,
  // in order of choice (kExpertChoice: highest weight first).
  std::vector<uint32_t> token_begin;
  std::vector<uint32_t> expert_ids;
  std::vector<float> weights;
  // Ascending by token, a token's own in order of choice. With DropPolicy::kNextBest these are the
  // experts that a token wanted and did not get, also where it got others in their place.
  std::vector<DroppedAssignment> dropped;
  // What the gate gave to these: the sum of their scores, before weights are renormalised.
  double dropped_mass = 0;
  // Tokens chosen for with a live bias, and how many of these would have had another set of experts
  // with the checkpoint's (before second experts are sampled and capacity counts).
  uint64_t compared = 0;
  uint64_t changed = 0;

  size_t tokens() const { return token_begin.empty() ? 0 : token_begin.size() - 1; }
};

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_ROUTED_TOKENS_H_
