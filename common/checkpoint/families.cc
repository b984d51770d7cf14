#include "common/checkpoint/families.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/json_text.h"

namespace expertmesh {
namespace {

constexpr uint32_t kMaxLayers = 4096;
// Experts in all layers together: bounds what a hostile config.json can make us allocate.
constexpr uint64_t kMaxExpertsInAll = 1u << 20;

std::string KnownFamilies() {
  return absl::StrJoin(Families(), ", ", [](std::string* out, const Family* family) {
    absl::StrAppend(out, family->name);
  });
}

bool Contains(absl::Span<const absl::string_view> names, absl::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// model_type decides; architectures help when it is absent or a variant's own name.
absl::StatusOr<const Family*> Recognise(const ConfigReader& config) {
  ASSIGN_OR_RETURN(const std::string model_type, config.StringOr({"model_type"}, ""));
  ASSIGN_OR_RETURN(const std::vector<std::string> architectures, config.Strings("architectures"));
  for (const Family* family : Families()) {
    if (Contains(family->model_types, model_type)) {
      return family;
    }
  }
  for (const Family* family : Families()) {
    for (const std::string& architecture : architectures) {
      if (Contains(family->architectures, architecture)) {
        return family;
      }
    }
  }
  return config.Error(absl::StrCat("model_type ", Quoted(model_type), " (architectures ",
                                   Quoted(absl::StrJoin(architectures, ", ")),
                                   ") is no known family; known: ", KnownFamilies()));
}

absl::Status ReadDType(const ConfigReader& config, ModelLayout* layout) {
  ASSIGN_OR_RETURN(const std::string text, config.StringOr({"dtype", "torch_dtype"}, ""));
  const absl::string_view name = absl::StripPrefix(text, "torch.");
  layout->dtype_known = !text.empty();
  if (name == "bfloat16") {
    layout->model.dtype = DType::kBF16;
  } else if (name == "float16") {
    layout->model.dtype = DType::kF16;
  } else if (name == "float32" || text.empty()) {
    layout->model.dtype = DType::kF32;
  } else {
    return config.Error(absl::StrCat(config.NameOf({"dtype", "torch_dtype"}), " = ", Quoted(text),
                                     " must be float32, float16 or bfloat16"));
  }
  return absl::OkStatus();
}

absl::Status ReadCommon(const ConfigReader& config, ModelLayout* layout) {
  ModelDescription& model = layout->model;
  ASSIGN_OR_RETURN(model.d_model, config.Positive({"hidden_size", "d_model"}, kMaxWidth));
  ASSIGN_OR_RETURN(model.num_layers, config.Positive({"num_hidden_layers"}, kMaxLayers));
  ASSIGN_OR_RETURN(layout->vocab_size, config.Positive({"vocab_size"}));
  ASSIGN_OR_RETURN(layout->tied_embeddings, config.BoolOr({"tie_word_embeddings"}, false));
  return ReadDType(config, layout);
}

uint64_t Elements(const std::vector<uint64_t>& shape) {
  uint64_t product = 1;
  for (const uint64_t extent : shape) {
    product *= extent;
  }
  return product;
}

ParameterCounts Count(const ModelLayout& layout) {
  ParameterCounts counts;
  ForEachTensor(layout, [&](const TensorDeclaration& tensor) {
    const uint64_t elements = Elements(tensor.shape);
    counts.total += elements;
    counts.routed_experts += tensor.routed_expert ? elements : 0;
  });
  counts.active = counts.total - counts.routed_experts;
  for (const MoeLayerDescription& layer : layout.model.layers) {
    counts.per_expert = uint64_t{3} * layer.expert.d_model * layer.expert.intermediate_size;
    counts.active += layer.routing.top_k * counts.per_expert;
  }
  return counts;
}

// gate, up and down of one gated linear unit.
void VisitFfn(absl::string_view gate, absl::string_view up, absl::string_view down, uint32_t layer,
              uint32_t expert, uint64_t d_model, uint64_t width, bool routed,
              absl::FunctionRef<void(const TensorDeclaration&)> visit) {
  visit({TensorName(gate, layer, expert), {width, d_model}, TensorKind::kLinear, routed});
  visit({TensorName(up, layer, expert), {width, d_model}, TensorKind::kLinear, routed});
  visit({TensorName(down, layer, expert), {d_model, width}, TensorKind::kLinear, routed});
}

void VisitMoeLayer(const TensorPatterns& patterns, const MoeLayerDescription& layer,
                   absl::FunctionRef<void(const TensorDeclaration&)> visit) {
  const uint32_t index = layer.layer;
  const uint64_t d_model = layer.expert.d_model;
  const uint64_t experts = layer.routing.num_experts;
  visit({TensorName(patterns.gate, index), {experts, d_model}, TensorKind::kLinear, false});
  if (layer.routing.select_bias) {
    visit({TensorName(patterns.select_bias, index), {experts}, TensorKind::kSelectBias, false});
  }
  if (layer.shared_intermediate_size > 0) {
    VisitFfn(patterns.shared_gate, patterns.shared_up, patterns.shared_down, index, 0, d_model,
             layer.shared_intermediate_size, false, visit);
  }
  for (uint32_t expert = 0; expert < layer.routing.num_experts; ++expert) {
    VisitFfn(patterns.expert_gate, patterns.expert_up, patterns.expert_down, index, expert, d_model,
             layer.expert.intermediate_size, true, visit);
  }
}

}  // namespace

absl::Span<const Family* const> Families() {
  static const Family* const kFamilies[] = {&MixtralFamily(), &Qwen3MoeFamily(),
                                            &DeepseekV3Family()};
  return kFamilies;
}

absl::StatusOr<const Family*> FindFamily(absl::string_view name) {
  for (const Family* family : Families()) {
    if (family->name == name) {
      return family;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("family ", Quoted(name), " is not known; known: ", KnownFamilies()));
}

absl::StatusOr<ModelLayout> ReadModelLayout(const ConfigReader& config) {
  ModelLayout layout;
  ASSIGN_OR_RETURN(layout.family, Recognise(config));
  layout.model.family = std::string(layout.family->name);
  RETURN_IF_ERROR(ReadCommon(config, &layout));
  RETURN_IF_ERROR(layout.family->read(config, &layout));
  if (layout.model.layers.empty()) {
    return config.Error(absl::StrCat("none of the ", layout.model.num_layers,
                                     " layers (num_hidden_layers) has experts"));
  }
  uint64_t experts = 0;
  for (const MoeLayerDescription& layer : layout.model.layers) {
    experts += layer.routing.num_experts;
  }
  if (experts > kMaxExpertsInAll) {
    return config.Error(absl::StrCat("num_hidden_layers = ", layout.model.num_layers, " gives ",
                                     experts, " experts in all; at most ", kMaxExpertsInAll,
                                     " are accepted"));
  }
  layout.model.parameters = Count(layout);
  return layout;
}

std::string TensorName(absl::string_view pattern, uint32_t layer, uint32_t expert) {
  return absl::StrReplaceAll(
      pattern, {{"{layer}", absl::StrCat(layer)}, {"{expert}", absl::StrCat(expert)}});
}

void ForEachTensor(const ModelLayout& layout,
                   absl::FunctionRef<void(const TensorDeclaration&)> visit) {
  const uint64_t d_model = layout.model.d_model;
  const uint64_t vocab = layout.vocab_size;
  const TensorPatterns& patterns = layout.family->patterns;
  visit({"model.embed_tokens.weight", {vocab, d_model}, TensorKind::kEmbedding, false});
  for (uint32_t layer = 0; layer < layout.model.num_layers; ++layer) {
    for (const TensorDeclaration& tensor : layout.every_layer) {
      visit({TensorName(tensor.name, layer), tensor.shape, tensor.kind, false});
    }
    if (const MoeLayerDescription* moe = layout.model.FindLayer(layer); moe != nullptr) {
      VisitMoeLayer(patterns, *moe, visit);
    } else {
      VisitFfn(patterns.dense_gate, patterns.dense_up, patterns.dense_down, layer, 0, d_model,
               layout.dense_intermediate_size, false, visit);
    }
  }
  visit({"model.norm.weight", {d_model}, TensorKind::kNorm, false});
  if (!layout.tied_embeddings) {
    visit({"lm_head.weight", {vocab, d_model}, TensorKind::kLinear, false});
  }
}

}  // namespace expertmesh
