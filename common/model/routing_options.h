// How tokens find their experts, as a few options that do not depend on each other. Every model
// family and every router of the literature is a point in this space; none has code of its own. The
// options are listed in the order in which routing applies them:
//
//   logits -> temperature -> noise -> score -> bias -> group limit -> choice -> weights
//          -> second expert -> renormalise -> capacity -> scale -> weight dtype
//
// "model" as a dtype is the one that the model is computed in: that of activations, whatever the
// checkpoint's weights are stored as. In float32 nothing is rounded.
//
// Options that look at more than one token (expert choice, capacity) look at the tokens of one
// *group* only: a request, or each of its sequences when it names them. So a request's result never
// depends on the requests that share its batch.
#ifndef EXPERTMESH_COMMON_MODEL_ROUTING_OPTIONS_H_
#define EXPERTMESH_COMMON_MODEL_ROUTING_OPTIONS_H_

#include <cstdint>

namespace expertmesh {

// Where the gate's logits are rounded. kModel: the product is accumulated in float32 and rounded
// once to the activation dtype. kF32: hidden state and gate weight are widened first; no rounding.
enum class LogitDtype { kModel, kF32 };

// kGumbel, kNormal: standard Gumbel or normal noise times `noise_scale` is added to every logit.
// kLearnedNormal: normal noise times softplus(noise weight * x) + noise_scale (Shazeer et al. 2017,
// noisy top-k). kJitter: the gate's input is multiplied by uniform numbers from 1 - noise_scale to
// 1 + noise_scale (Switch Transformer, training).
enum class Noise { kNone, kGumbel, kNormal, kLearnedNormal, kJitter };

// kSqrtSoftplus: sqrt(ln(1 + exp(z))).
enum class ScoreFunction { kIdentity, kSoftmax, kSigmoid, kSqrtSoftplus };

// kAll: scores of all experts, then selection. kSelected: selection by logits, then the score
// function over the k selected logits.
enum class ScoreScope { kAll, kSelected };

// Type scores are rounded to before anything is chosen by them.
enum class ScoreDtype { kF32, kModel };

// How a group of experts is ranked: its largest choice, or the sum of its two largest.
enum class GroupScore { kMax, kTopTwoSum };

// kTopK: a token takes its top_k best experts.
// kSparseMixer: twice the best expert; its weight is a softmax over the experts whose logit is
//   within 2 * sparse_mixer_epsilon of it, relative to the larger of the two magnitudes
//   (Phi-3.5-MoE). Score function, bias and group limit play no part; top_k is 2.
// kExpertChoice: every expert takes the tokens of the group with the highest scores for it, as many
//   as `capacity` says (Zhou et al. 2022). A token gets from none to all experts.
// kHash: expert token_id % num_experts, with weight 1; top_k is 1 (Roller et al. 2021).
enum class Choice { kTopK, kSparseMixer, kExpertChoice, kHash };

// Whether the second and later experts of a token are used (top_k > 1).
// kAlways. kSampled: chosen by logits with Gumbel noise. kRandom: kept with probability
// min(1, weight / second_expert_threshold) (GShard, NLLB).
enum class SecondExpert { kAlways, kSampled, kRandom };

// kSum: w / (sum + epsilon). kClampedSum: w / max(sum, epsilon). kDtypeClampedSum: the same, where
// epsilon is the step from 1 to the next number of the activation dtype (NLLB). kLp:
// w / (sum |w|^p)^(1/p).
enum class Renormalise { kNone, kSum, kClampedSum, kDtypeClampedSum, kLp };

// Which assignments an expert keeps when a group sends it more than its capacity.
// kPosition: first choices before second choices, earlier tokens before later ones.
// kBatchPrioritised: first choices before second ones, tokens with a higher best score first.
// kScore: the highest weights, whatever the slot.
// kNextBest: as kPosition, but a token whose expert is full takes its next best expert that has
//   room, while it has one.
enum class DropPolicy { kPosition, kBatchPrioritised, kScore, kNextBest };

// Assignments that one expert accepts from one group of tokens.
struct CapacityOptions {
  // The first of these that is set counts; none: unlimited (dropless).
  uint32_t tokens = 0;
  // ceil(factor * top_k * tokens of the group / num_experts). Conventions that leave top_k out say
  // factor / top_k here. With kExpertChoice top_k counts as 1.
  float factor = 0.0f;
  // Whatever `factor` gives, at least this many.
  uint32_t minimum = 0;
  DropPolicy drop = DropPolicy::kPosition;

  bool unlimited() const { return tokens == 0 && factor == 0.0f; }

  friend bool operator==(const CapacityOptions&, const CapacityOptions&) = default;
};

// Type the weights are rounded to before they multiply an expert's output.
enum class WeightDtype { kModel, kF32 };

// What a weight multiplies: the expert's output, or its input (Llama-4).
enum class ApplyWeight { kOutput, kInput };

// What a token passes on beside its experts. kNone: nothing. kComplement: its hidden state times
// 1 - (sum of its weights) (BASE layers).
enum class PassThrough { kNone, kComplement };

// Plain data. What holds between fields is checked by ValidateRouting (common/gate).
struct RoutingOptions {
  uint32_t num_experts = 0;
  // Experts per token; the most, when a token may get fewer. Not used by kExpertChoice.
  uint32_t top_k = 0;
  LogitDtype logit_dtype = LogitDtype::kF32;
  // The gate adds a bias to its logits (gpt-oss).
  bool logit_bias = false;
  // Logits are divided by it.
  float temperature = 1.0f;
  Noise noise = Noise::kNone;
  float noise_scale = 1.0f;
  // Seeds everything random in routing, unless the request has a seed. The same request with the
  // same seed is routed in the same way.
  uint64_t seed = 0;
  ScoreFunction score = ScoreFunction::kSoftmax;
  ScoreScope scope = ScoreScope::kAll;
  ScoreDtype score_dtype = ScoreDtype::kF32;
  // A per-expert correction is added to scores for selection only (DeepSeek-V3).
  bool select_bias = false;
  // Group limit: experts are n_group equal runs; only the topk_group best groups can be chosen
  // from.
  uint32_t n_group = 1;
  uint32_t topk_group = 1;
  GroupScore group_score = GroupScore::kMax;
  // What experts of other groups have as choice: 0 (DeepSeek-V2) or minus infinity (DeepSeek-V3).
  float masked_choice = 0.0f;
  Choice choice = Choice::kTopK;
  float sparse_mixer_epsilon = 0.0f;
  // Whether the family asks torch for a sorted top-k (DeepSeek and GLM do not). It changes the
  // order of the slots in torch-cpu tie order only; otherwise slots are best first.
  bool sorted_selection = true;
  SecondExpert second_expert = SecondExpert::kAlways;
  float second_expert_threshold = 0.5f;
  Renormalise renormalise = Renormalise::kNone;
  float renormalise_epsilon = 0.0f;
  // The p of kLp.
  float renormalise_p = 1.0f;
  // Renormalise over what is left when second experts and assignments beyond capacity are gone.
  bool renormalise_after_drop = false;
  CapacityOptions capacity;
  float scale = 1.0f;
  WeightDtype weight_dtype = WeightDtype::kF32;
  ApplyWeight apply = ApplyWeight::kOutput;
  PassThrough pass_through = PassThrough::kNone;

  friend bool operator==(const RoutingOptions&, const RoutingOptions&) = default;

  // A token's routing depends on other tokens of its group.
  bool looks_at_groups() const { return choice == Choice::kExpertChoice || !capacity.unlimited(); }
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_MODEL_ROUTING_OPTIONS_H_
