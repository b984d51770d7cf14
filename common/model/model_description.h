// What a model's MoE layers are, as plain data: every model family is a point in this space, filled
// in from its config.json by common/checkpoint and read by router, nodes and clients. No family has
// code of its own behind these options.
#ifndef EXPERTMESH_COMMON_MODEL_MODEL_DESCRIPTION_H_
#define EXPERTMESH_COMMON_MODEL_MODEL_DESCRIPTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/model/routing_options.h"
#include "common/tensor/dtype.h"

namespace expertmesh {

// What lies between an expert's products.
// kSilu, kRelu: act(gate x) * (up x) when gated, act(up x) otherwise.
// kClampedSwiglu: g = min(gate x, limit), u = clamp(up x, -limit, limit);
//   g * sigmoid(swiglu_alpha * g) * (u + 1) (gpt-oss).
enum class Activation { kSilu, kRelu, kClampedSwiglu };

// Linears of an expert: gate (when gated) and up [intermediate_size, d_model], down
// [d_model, intermediate_size]; each with a bias or none.
struct ExpertOptions {
  uint32_t d_model = 0;
  uint32_t intermediate_size = 0;
  Activation activation = Activation::kSilu;
  bool gated = true;
  bool bias = false;
  // kClampedSwiglu only.
  float swiglu_limit = 7.0f;
  float swiglu_alpha = 1.702f;

  // Parameters of one expert.
  uint64_t parameters() const {
    const uint64_t linears = gated ? 3 : 2;
    const uint64_t biases = bias ? (linears - 1) * intermediate_size + d_model : 0;
    return linears * d_model * intermediate_size + biases;
  }

  friend bool operator==(const ExpertOptions&, const ExpertOptions&) = default;
};

// One MoE layer.
struct MoeLayerDescription {
  // Index of the layer in the model. In a model of two stacks (Switch, NLLB) the decoder's layers
  // follow the encoder's.
  uint32_t layer = 0;
  RoutingOptions routing;
  ExpertOptions expert;
  // Width of the shared expert(s) taken together; 0: none. A gated linear unit with silu and
  // without biases, whose output is added to the weighted sum.
  uint32_t shared_intermediate_size = 0;
  // The shared experts' output is multiplied by sigmoid(shared gate * x) first (Qwen2-MoE).
  bool shared_gate = false;

  // The shared experts, taken as one, where they are hosted like a routed expert: their id is one
  // past the routed experts', in all layers, also those that have none.
  uint32_t shared_expert_id() const { return routing.num_experts; }
  // Ids of experts that can be hosted are below.
  uint32_t hostable_experts() const {
    return routing.num_experts + (shared_intermediate_size > 0 ? 1 : 0);
  }
  ExpertOptions shared_expert() const {
    ExpertOptions plain;
    plain.d_model = expert.d_model;
    plain.intermediate_size = shared_intermediate_size;
    return plain;
  }
  // What `id`, below hostable_experts(), is.
  ExpertOptions hostable_expert(uint32_t id) const {
    return id == shared_expert_id() ? shared_expert() : expert;
  }
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
  // Layers in all, dense ones and those of both stacks included.
  uint32_t num_layers = 0;
  // What the weights are stored as, by embeddings and norms (where there is config.json alone, by
  // that): kF32, kF16 or kBF16. What they are computed in is another matter.
  Dtype dtype = Dtype::kF32;
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
