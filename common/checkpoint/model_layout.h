// Everything config.json tells about a model: its description, and every tensor that it should
// have.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_MODEL_LAYOUT_H_
#define EXPERTMESH_COMMON_CHECKPOINT_MODEL_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "common/checkpoint/tensor_places.h"
#include "common/model/model_description.h"

namespace expertmesh::checkpoint {

// What a tensor is for: decides how a synthetic checkpoint fills it.
enum class TensorKind : uint8_t {
  kLinear,       // [outputs, inputs], in FP8 checkpoints quantised.
  kPlainLinear,  // The same, never quantised: gates, lm_head.
  kEmbedding,    // [vocabulary, d_model]
  kNorm,         // Scale of a normalisation.
  kBias,         // Added to a linear's output.
  kSelectBias,   // Correction of the choice of experts; float32 whatever the model's dtype.
};

struct TensorDeclaration {
  std::string name;
  std::vector<uint64_t> shape;
  TensorKind kind = TensorKind::kLinear;
  // How many inputs a linear sums; 0 for the other kinds.
  uint64_t inputs = 0;
  // Belongs to routed experts.
  bool routed_expert = false;
  Encoding encoding = Encoding::kPlain;
};

// One layer: what it is called, and everything in it but its MoE tensors.
struct LayerLayout {
  // Which of Family::stacks, and the {layer} of its names: the index inside that stack.
  uint32_t stack = 0;
  uint32_t index = 0;
  std::vector<TensorDeclaration> tensors;
};

struct Family;

struct ModelLayout {
  const Family* family = nullptr;
  // `parameters` is filled in by ReadModelLayout, the rest by the family.
  ModelDescription model;
  // False when config.json does not name the dtype; model.dtype is then kF32.
  bool dtype_known = false;
  // What a person should hear of: whole sentences that name the file, the key and the value.
  std::vector<std::string> warnings;
  uint32_t vocab_size = 0;
  bool tied_embeddings = false;
  // quantization_config: quant_method, empty when there is none, and the block size of FP8.
  std::string quantisation;
  uint32_t fp8_block_rows = 128;
  uint32_t fp8_block_cols = 128;
  // model.num_layers of them.
  std::vector<LayerLayout> layers;
  // What belongs to no layer: embeddings, last norm, output.
  std::vector<TensorDeclaration> outer;
};

// What a name of a checkpoint may have in place of {model}; the first is the usual one.
inline constexpr absl::string_view kModelPrefixes[] = {"model.", "", "language_model.model.",
                                                       "model.language_model."};

// What the names of a layer's tensors begin with; `prefix` is one of kModelPrefixes.
std::string LayerPrefix(const ModelLayout& layout, const LayerLayout& layer,
                        absl::string_view prefix = kModelPrefixes[0]);
// What Storage's names stand behind.
std::string MoePrefix(const ModelLayout& layout, const LayerLayout& layer,
                      absl::string_view prefix = kModelPrefixes[0]);

// A place's name with its {expert} filled in.
std::string TensorName(absl::string_view prefix, absl::string_view name, uint32_t expert = 0);

// Calls `visit` for every tensor of the model, stored as `storage` says.
void ForEachTensor(const ModelLayout& layout, const Storage& storage,
                   absl::FunctionRef<void(const TensorDeclaration&)> visit);
// The same for the family's first storage.
void ForEachTensor(const ModelLayout& layout,
                   absl::FunctionRef<void(const TensorDeclaration&)> visit);

ParameterCounts CountParameters(const ModelLayout& layout);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_MODEL_LAYOUT_H_
