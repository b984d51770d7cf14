// How evenly the experts of one layer are used, in the measures of the literature: from counts of
// assignments, and from what the gate thought of them. Pure functions, safe from any thread.
//
// Sizes: assignments, probability sums and their like are [num_experts]. Measures of no load at all
// are those of a balanced one.
#ifndef EXPERTMESH_COMMON_BALANCE_MEASURES_H_
#define EXPERTMESH_COMMON_BALANCE_MEASURES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace expertmesh::balance {

// ---- From counts.

// Assignments per expert.
using AssignmentCounts = absl::Span<const uint64_t>;

// MaxVio (Wang et al. 2024): (largest load - mean) / mean. 0 when balanced; num_experts / top_k - 1
// when every token goes to the same experts.
double MaxViolation(AssignmentCounts load);

// CV: the standard deviation as a share of the mean. The literature's load loss is its square.
double CoefficientOfVariation(AssignmentCounts load);
double CoefficientOfVariation(absl::Span<const double> load);

// Entropy of the shares, divided by ln(num_experts): 1 when balanced, 0 when one expert gets all.
double NormalisedEntropy(AssignmentCounts load);

// (1 / num_experts) * sum of squared shares: 1 / num_experts^2 when balanced.
double MeanSquaredShare(AssignmentCounts load);
double MeanSquaredShare(absl::Span<const double> load);

// The one with the most assignments, the first of several.
struct FullestExpert {
  uint32_t expert = 0;
  // Its part of all assignments; 0 without any.
  double share = 0;
};
FullestExpert FindFullest(AssignmentCounts load);

// Experts without any assignment, ascending.
std::vector<uint32_t> DeadExperts(AssignmentCounts load);

// MaxVio over time. Not thread-safe.
class MaxViolationMeter {
 public:
  explicit MaxViolationMeter(uint32_t num_experts) : load_(num_experts) {}

  // One batch of the layer. Batches without assignments do not count.
  void Add(AssignmentCounts batch);

  // MaxVio(global): of everything added, taken as one batch.
  double global() const { return MaxViolation(load_); }
  // MaxVio(batch): the mean over batches, and the worst of them.
  double batch() const { return batches_ == 0 ? 0 : sum_ / static_cast<double>(batches_); }
  double worst_batch() const { return worst_; }
  uint64_t batches() const { return batches_; }

 private:
  std::vector<uint64_t> load_;
  double sum_ = 0;
  double worst_ = 0;
  uint64_t batches_ = 0;
};

// When a gate counts as collapsed, and an expert as dead.
struct CollapseLimits {
  // Collapsed: of what the top_k fullest experts together would get of all assignments at most
  // beyond an even share, they get at least this share.
  double collapsed_share = 0.9;
  // Assignments of a mean expert, below which nothing is said: one without any is dead from here
  // on.
  double least_mean = 20;
};

struct Collapse {
  // Ascending; empty: not collapsed.
  std::vector<uint32_t> collapsed;
  // What these get of all assignments.
  double share = 0;
  // Ascending.
  std::vector<uint32_t> dead;

  bool any() const { return !collapsed.empty() || !dead.empty(); }
  // "collapsed: expert 7 gets 93 % of the assignments; dead: experts 0-2,5 (4 of 8)". Empty: none.
  std::string text;
};

// A layer whose tokens cannot choose (num_experts <= top_k) never collapses.
Collapse FindCollapse(AssignmentCounts load, uint32_t top_k, const CollapseLimits& limits = {});

// ---- From scores.

// Tokens of one layer (or of one sequence in it), as much of them as balance losses ask for.
struct ScoredTokens {
  uint64_t tokens = 0;
  uint32_t top_k = 0;
  AssignmentCounts assignments;
  // Sums over these tokens of what the gate gave each expert: softmax of its logits, or another
  // score divided by the token's sum of it. Whichever experts were chosen.
  absl::Span<const double> probability_sums;
};

// Which fraction f of the tokens an expert has. kAllSlots: assignments / tokens, so that a balanced
// layer's loss is top_k; kPerSlot: divided by top_k as well, so that it is 1.
enum class FractionConvention { kAllSlots, kPerSlot };

// Fedus et al. 2021: num_experts * sum of f * P, where P is the mean probability.
double SwitchLoss(const ScoredTokens& tokens, FractionConvention convention);

// Megatron-Core's aux loss, num_experts / (top_k * tokens^2) * sum of assignments * sum of
// probabilities; also DeepSpeed's for top-k and DeepSeek-V2's over a batch. 1 when balanced.
double MegatronLoss(const ScoredTokens& tokens);

// The same with counts of more than one batch (global_aux_loss): f is that of `assignments` over
// `all_tokens` tokens of all batches of a step, P that of `batch`.
double MegatronGlobalLoss(const ScoredTokens& batch, AssignmentCounts assignments,
                          uint64_t all_tokens);

// MegaBlocks' (DBRX): the mean of MegatronLoss over layers, times `weight`.
double MegaBlocksLoss(absl::Span<const ScoredTokens> layers, double weight);

// Lepikhin et al. 2020: (1 / num_experts) * sum of (first choices / tokens) * P; 1 / num_experts^2
// when balanced. `first_choices`: counts of each token's best expert alone. Hugging Face's Switch
// and NLLB: num_experts^2 times it, as a mean over groups; NLLB's P is made of the weights that
// experts were given, ScoreAccumulator::importance().
double GshardLoss(AssignmentCounts first_choices, uint64_t tokens,
                  absl::Span<const double> probability_sums);

// load_balancing_loss_func of Hugging Face transformers: f and P are each averaged over the tokens
// of all layers before they are multiplied. top_k when balanced. Layers are of one size.
double HuggingFaceLoss(absl::Span<const ScoredTokens> layers);

// DeepSeek-V2 (seq_aux): mean over sequences of sum of f * P with f = assignments * num_experts /
// (top_k * tokens), times alpha.
double DeepSeekV2SequenceLoss(absl::Span<const ScoredTokens> sequences, double alpha = 1e-3);

// DeepSeek-V3: the same of one sequence, where P is the mean of sigmoid scores divided by the
// token's sum of them (ScoreAccumulator::AddSigmoidLogits).
double DeepSeekV3SequenceLoss(const ScoredTokens& sequence, double alpha = 1e-4);

// Shazeer et al. 2017: how many tokens would choose each expert if its noise alone were drawn
// again: Phi((clean - threshold) / deviation), summed. All [tokens, num_experts]; deviations above
// 0; top_k below num_experts. Its loss is CoefficientOfVariation(...)^2.
std::vector<double> NoisyTopKLoad(absl::Span<const float> clean_logits,
                                  absl::Span<const float> noisy_logits,
                                  absl::Span<const float> deviations, uint32_t num_experts,
                                  uint32_t top_k);

// What losses need of the scores, summed as rows come: half a microsecond for a row of 256 experts,
// with sigmoid scores three quarters. A row with NaN or infinity is left out: it would be all that
// is seen. Not thread-safe.
class ScoreAccumulator {
 public:
  explicit ScoreAccumulator(uint32_t num_experts)
      : probability_sums_(num_experts),
        importance_(num_experts),
        second_sums_(num_experts),
        second_choices_(num_experts),
        values_(num_experts) {}

  // Logits of one token, [num_experts], of a gate with softmax scores.
  void AddSoftmaxLogits(absl::Span<const float> logits);
  // The same of a gate with sigmoid scores; P is sigmoid / sum of sigmoids.
  void AddSigmoidLogits(absl::Span<const float> logits);
  // Probabilities that are there already: P alone, nothing for the z-loss.
  void AddProbabilities(absl::Span<const float> probabilities);
  // Experts of one token and their weights, [top_k] each: for the importance.
  void AddWeights(absl::Span<const uint32_t> experts, absl::Span<const float> weights);
  // The first two experts of the token that was added last and not left out, best first; at most
  // once for it.
  void AddSecondChoice(uint32_t first, uint32_t second);

  // Adds what another one of the same size has seen.
  void Merge(const ScoreAccumulator& other);
  void Clear();

  uint64_t tokens() const { return tokens_; }
  const std::vector<double>& probability_sums() const { return probability_sums_; }
  // Importance (Shazeer et al. 2017): sum of the weights that each expert's output was given.
  const std::vector<double>& importance() const { return importance_; }
  // CV^2 of the importance; 0 when balanced.
  double ImportanceLoss() const;
  // Zoph et al. 2022: mean of logsumexp(logits)^2; (ln num_experts)^2 at logits of 0. 0 without
  // logits.
  double ZLoss() const;
  // Mesh TensorFlow's loss of second places (moe_use_second_place_loss): num_experts * sum of f *
  // P, where f is which fraction of the tokens has the expert as its second choice, and P the mean
  // of what the gate gave the experts beside the first, as shares of 1. 1 when balanced.
  double SecondPlaceLoss() const;

 private:
  // Counts one token. values_ become exp(logit - largest), whose sum it returns; 0: left out.
  float AddLogSumExp(absl::Span<const float> logits);
  // Adds values_ over their `sum`.
  void AddValues(float sum);

  uint64_t tokens_ = 0;
  // Tokens whose logits are known.
  uint64_t with_logits_ = 0;
  double squared_log_sums_ = 0;
  std::vector<double> probability_sums_;
  std::vector<double> importance_;
  // Tokens whose second choice is known.
  uint64_t with_second_ = 0;
  std::vector<double> second_sums_;
  std::vector<uint64_t> second_choices_;
  std::vector<float> values_;  // Those of the last token, in any unit.
};

// The whole loss of Mesh TensorFlow's top-2 gating: num_experts^2 * GshardLoss, and half the loss
// of second places. 1.5 when balanced. `first_choices`: of the tokens that `scores` has seen.
double MeshTensorFlowLoss(AssignmentCounts first_choices, const ScoreAccumulator& scores);

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_MEASURES_H_
