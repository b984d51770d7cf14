// What a model's MoE layers are, as plain data: every model family is a point in this space, filled
// in from its config.json by common/checkpoint and read by router, nodes and clients. No family has
// code of its own behind these options.
#ifndef EXPERTMESH_COMMON_MODEL_MODEL_DESCRIPTION_H_
#define EXPERTMESH_COMMON_MODEL_MODEL_DESCRIPTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/tensor/dtype.h"

namespace expertmesh {

// Where the gate's logits are rounded. kModel: the product is accumulated in float32 and rounded
// once to the model's dtype. kF32: hidden state and gate weight are widened first; no rounding.
enum class LogitDType { kModel, kF32 };

enum class ScoreFunction { kIdentity, kSoftmax, kSigmoid };

// kAll: scores of all experts, then selection. kSelected: selection by logits, then the score
// function over the k selected logits.
enum class ScoreScope { kAll, kSelected };

// How a group of experts is ranked: its largest choice, or the sum of its two largest.
enum class GroupScore { kMax, kTopTwoSum };

enum class Renormalise { kNone, kSum };

// Type the weights are rounded to before they multiply an expert's output.
enum class WeightDType { kModel, kF32 };

enum class ApplyWeight { kOutput, kInput };

// The options of one gate, in the order in which routing applies them. Formulas: DESIGN.md
// "Routing".
struct RoutingOptions {
  uint32_t num_experts = 0;
  uint32_t top_k = 0;
  LogitDType logit_dtype = LogitDType::kF32;
  ScoreFunction score = ScoreFunction::kSoftmax;
  ScoreScope scope = ScoreScope::kAll;
  // A per-expert correction is added to scores for selection only (DeepSeek-V3).
  bool select_bias = false;
  // Group limit: experts are n_group equal runs; only the topk_group best groups can be chosen
  // from.
  uint32_t n_group = 1;
  uint32_t topk_group = 1;
  GroupScore group_score = GroupScore::kMax;
  // What experts of other groups have as choice: 0 (DeepSeek-V2) or minus infinity (DeepSeek-V3).
  float masked_choice = 0.0f;
  // Whether the family asks torch for a sorted top-k (DeepSeek and GLM do not). It changes the order of
  // the slots in torch-cpu tie order only; otherwise slots are best first.
  bool sorted_selection = true;
  Renormalise renormalise = Renormalise::kNone;
  // Added to the sum before dividing.
  float renormalise_epsilon = 0.0f;
  float scale = 1.0f;
  WeightDType weight_dtype = WeightDType::kF32;
  ApplyWeight apply = ApplyWeight::kOutput;
};

enum class Activation { kSilu };

// A gated linear unit: down(act(gate x) * (up x)), gate and up [intermediate_size, d_model], down
// [d_model, intermediate_size], no biases.
struct ExpertOptions {
  uint32_t d_model = 0;
  uint32_t intermediate_size = 0;
  Activation activation = Activation::kSilu;
};

// One MoE layer.
struct MoeLayerDescription {
  // Index of the layer in the model.
  uint32_t layer = 0;
  RoutingOptions routing;
  ExpertOptions expert;
  // Width of the shared expert(s) taken together; 0: none. Their output is added to the weighted
  // sum.
  uint32_t shared_intermediate_size = 0;
};

// Parameters by the convention of the model cards: both embeddings counted; "active" is what one
// token touches: everything that is not a routed expert, plus top_k experts per layer.
struct ParameterCounts {
  uint64_t total = 0;
  uint64_t active = 0;
  // All routed experts of all layers, and one of them.
  uint64_t routed_experts = 0;
  uint64_t per_expert = 0;
};

struct ModelDescription {
  // Name in the table of families, for example "qwen3_moe".
  std::string family;
  uint32_t d_model = 0;
  // Layers in all, dense ones included.
  uint32_t num_layers = 0;
  // The model's dtype: kF32, kF16 or kBF16.
  DType dtype = DType::kF32;
  // Ascending by `layer`.
  std::vector<MoeLayerDescription> layers;
  ParameterCounts parameters;

  // Null when `layer` is not a MoE layer.
  const MoeLayerDescription* FindLayer(uint32_t layer) const {
    for (const MoeLayerDescription& candidate : layers) {
      if (candidate.layer == layer) {
        return &candidate;
      }
    }
    return nullptr;
  }
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_MODEL_MODEL_DESCRIPTION_H_
