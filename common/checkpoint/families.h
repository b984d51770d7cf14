// The table of model families. A family is one entry: how its config.json is recognised and read,
// what its tensors are called, and how a synthetic config.json of it looks. Nothing outside the
// entry knows a family.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_FAMILIES_H_
#define EXPERTMESH_COMMON_CHECKPOINT_FAMILIES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/checkpoint/config_reader.h"
#include "common/checkpoint/synthetic_options.h"
#include "common/model/model_description.h"

namespace expertmesh {

// Names of tensors, with {layer} and {expert} to be filled in. Empty where the family has none.
struct TensorPatterns {
  absl::string_view gate;         // [num_experts, d_model]
  absl::string_view select_bias;  // [num_experts]
  absl::string_view expert_gate;  // [intermediate_size, d_model]
  absl::string_view expert_up;    // [intermediate_size, d_model]
  absl::string_view expert_down;  // [d_model, intermediate_size]
  absl::string_view shared_gate;  // As expert_*, with the width of the shared experts together.
  absl::string_view shared_up;
  absl::string_view shared_down;
  absl::string_view dense_gate;  // As expert_*, of layers without experts.
  absl::string_view dense_up;
  absl::string_view dense_down;
};

// What a tensor is for: decides how a synthetic checkpoint fills it.
enum class TensorKind {
  kLinear,      // [out, in]
  kEmbedding,   // [vocabulary, d_model]
  kNorm,        // Scale of a normalisation.
  kBias,        // Added to a linear's output.
  kSelectBias,  // Correction of the choice of experts; float32 whatever the model's dtype.
};

struct TensorDeclaration {
  std::string name;
  std::vector<uint64_t> shape;
  TensorKind kind = TensorKind::kLinear;
  // Belongs to one routed expert.
  bool routed_expert = false;
};

struct Family;

// Everything config.json tells.
struct ModelLayout {
  const Family* family = nullptr;
  // `parameters` is filled in by ReadModelLayout, the rest by the family.
  ModelDescription model;
  // False when config.json does not name the dtype; model.dtype is then kF32.
  bool dtype_known = false;
  uint32_t vocab_size = 0;
  bool tied_embeddings = false;
  // Width of layers without experts.
  uint32_t dense_intermediate_size = 0;
  // Attention and norms: what each layer has, names with {layer}.
  std::vector<TensorDeclaration> every_layer;
};

struct Family {
  absl::string_view name;
  // Values of "model_type" and "architectures" in config.json.
  absl::Span<const absl::string_view> model_types;
  absl::Span<const absl::string_view> architectures;
  TensorPatterns patterns;
  // Fills in `layout` (common parts are there already: d_model, num_layers, dtype, vocab_size,
  // tied_embeddings).
  absl::Status (*read)(const ConfigReader& config, ModelLayout* layout);
  // config.json of a small model of this family.
  absl::StatusOr<std::string> (*synthetic_config)(const SyntheticOptions& options);
};

const Family& MixtralFamily();
const Family& Qwen3MoeFamily();
const Family& DeepseekV3Family();

// All families.
absl::Span<const Family* const> Families();

// By name; INVALID_ARGUMENT lists the known ones.
absl::StatusOr<const Family*> FindFamily(absl::string_view name);

// Recognises the family, reads and checks everything, and counts the parameters.
// INVALID_ARGUMENT names the key and the value, or lists the known families.
absl::StatusOr<ModelLayout> ReadModelLayout(const ConfigReader& config);

// A pattern with its places filled in.
std::string TensorName(absl::string_view pattern, uint32_t layer, uint32_t expert = 0);

// Calls `visit` for every tensor of the model in the order of the layers.
void ForEachTensor(const ModelLayout& layout,
                   absl::FunctionRef<void(const TensorDeclaration&)> visit);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_CHECKPOINT_FAMILIES_H_
