// How the tokens of a synthetic load choose their experts, and what a bias changes about it.
//
// A token's score for an expert is ln(weight of the expert) + noise of its own, standard Gumbel; it
// takes the top_k highest. So a load of top-1 is as the weights are, and one of top-k is flatter at
// its head: no expert gets more than one assignment of a token. A bias b adds slope * b: scores are
// sigmoids near one half, whose slope is 1 / 4, so that a bias is worth 4 times as much in logits.
//
// Both figures below are closed forms for many experts (an exponential race with one threshold for
// all tokens); against drawn tokens they are within 0.03 of the chance and a tenth of the share
// that changes, see expert_choice_test.cc.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_EXPERT_CHOICE_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_EXPERT_CHOICE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace expertmesh::replay {

// Logits that one unit of bias is worth.
inline constexpr double kBiasSlope = 4;

struct ExpertChoice {
  // [num_experts] Chance that an expert is among a token's top_k; they add up to top_k.
  std::vector<double> chance;
  // [num_experts] How densely the scores of an expert lie around the least chosen one.
  std::vector<double> density;
};

// `log_weights`: [num_experts], finite. top_k from 1 to num_experts. Reuses the memory of `choice`.
void Choose(absl::Span<const double> log_weights, uint32_t top_k, ExpertChoice* choice);

// Share of tokens that choose other experts when `bias` is added: `without` and `with` are what
// Choose makes of the weights and of the weights with it. All [num_experts].
double ChangedShare(const ExpertChoice& without, const ExpertChoice& with,
                    absl::Span<const double> bias_in_logits);

// MaxVio of one batch of `tokens`, in which each expert has what is expected plus its `noise`, in
// standard deviations. Both [num_experts].
double BatchViolation(absl::Span<const double> chance, absl::Span<const double> noise,
                      double tokens);

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_EXPERT_CHOICE_H_
