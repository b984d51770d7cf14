#include "common/checkpoint/families.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/json/json_text.h"

namespace expertmesh::checkpoint {
namespace {

// Experts in all layers together: bounds what a hostile config.json can make us allocate.
constexpr uint64_t kMaxExpertsInAll = 1u << 20;
// Where a model of several kinds of input keeps its language model, and what that inherits.
constexpr absl::string_view kTextConfig = "text_config";
constexpr absl::string_view kInherited[] = {"dtype", "torch_dtype", "tie_word_embeddings",
                                            "quantization_config"};

std::string KnownFamilies() {
  return absl::StrJoin(Families(), ", ", [](std::string* out, const Family* family) {
    absl::StrAppend(out, family->name);
  });
}

bool Contains(absl::Span<const absl::string_view> names, absl::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// model_type decides; architectures help when it is absent or a variant's own name. Null: neither
// is known.
absl::StatusOr<const Family*> Recognise(const JsonReader& config) {
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
  return nullptr;
}

absl::Status Unknown(const JsonReader& config) {
  ASSIGN_OR_RETURN(const std::string model_type, config.StringOr({"model_type"}, ""));
  ASSIGN_OR_RETURN(const std::vector<std::string> architectures, config.Strings("architectures"));
  return config.Error(absl::StrCat("model_type ", Quoted(model_type), " (architectures ",
                                   Quoted(absl::StrJoin(architectures, ", ")),
                                   ") is no known family; known: ", KnownFamilies()));
}

absl::Status ReadDtype(const JsonReader& config, ModelLayout* layout) {
  ASSIGN_OR_RETURN(const std::string text, config.StringOr({"dtype", "torch_dtype"}, ""));
  const absl::string_view name = absl::StripPrefix(text, "torch.");
  layout->dtype_known = !text.empty();
  if (name == "bfloat16") {
    layout->model.dtype = Dtype::kBF16;
  } else if (name == "float16") {
    layout->model.dtype = Dtype::kF16;
  } else if (name == "float32" || text.empty()) {
    layout->model.dtype = Dtype::kF32;
  } else {
    return config.Error(absl::StrCat(config.NameOf({"dtype", "torch_dtype"}), " = ", Quoted(text),
                                     " must be float32, float16 or bfloat16"));
  }
  return absl::OkStatus();
}

absl::Status ReadQuantisation(const JsonReader& config, ModelLayout* layout) {
  ASSIGN_OR_RETURN(const JsonReader quantisation, config.ObjectOrEmpty("quantization_config"));
  ASSIGN_OR_RETURN(layout->quantisation, quantisation.StringOr({"quant_method"}, ""));
  ASSIGN_OR_RETURN(const std::vector<uint32_t> block,
                   quantisation.WholeNumbers("weight_block_size"));
  if (block.empty()) {
    return absl::OkStatus();
  }
  if (block.size() != 2 || block[0] == 0 || block[1] == 0) {
    return quantisation.Error("weight_block_size must be two whole numbers from 1");
  }
  layout->fp8_block_rows = block[0];
  layout->fp8_block_cols = block[1];
  return absl::OkStatus();
}

absl::Status ReadCommon(const JsonReader& config, ModelLayout* layout) {
  ASSIGN_OR_RETURN(layout->model.d_model, config.Positive({"hidden_size", "d_model"}, kMaxWidth));
  ASSIGN_OR_RETURN(layout->vocab_size, config.Positive({"vocab_size"}));
  ASSIGN_OR_RETURN(layout->tied_embeddings,
                   config.BoolOr({"tie_word_embeddings"}, layout->family->tied_by_default));
  return ReadQuantisation(config, layout);
}

absl::Status CheckExperts(const JsonReader& config, const ModelDescription& model) {
  if (model.layers.empty()) {
    return config.Error(
        absl::StrCat("none of the ", model.num_layers, " layers (num_hidden_layers) has experts"));
  }
  uint64_t experts = 0;
  for (const MoeLayerDescription& layer : model.layers) {
    experts += layer.routing.num_experts;
  }
  if (experts > kMaxExpertsInAll) {
    return config.Error(absl::StrCat("num_hidden_layers = ", model.num_layers, " gives ", experts,
                                     " experts in all; at most ", kMaxExpertsInAll,
                                     " are accepted"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Span<const Family* const> Families() {
  static const Family* const kFamilies[] = {
      &MixtralFamily(),    &DeepseekMoeFamily(),   &DeepseekV2Family(), &DeepseekV3Family(),
      &Glm4MoeFamily(),    &Qwen2MoeFamily(),      &Qwen3MoeFamily(),   &OlmoeFamily(),
      &GraniteMoeFamily(), &GraniteSharedFamily(), &GptOssFamily(),     &Llama4Family(),
      &PhimoeFamily(),     &DbrxFamily(),          &JambaFamily(),      &SwitchFamily(),
      &NllbMoeFamily(),    &Lfm2MoeFamily(),       &Ernie45MoeFamily(), &MinimaxM2Family()};
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

absl::StatusOr<JsonReader> LanguageConfig(const JsonReader& config) {
  ASSIGN_OR_RETURN(const Family* family, Recognise(config));
  if (family != nullptr || !config.Has(kTextConfig)) {
    return family != nullptr ? absl::StatusOr<JsonReader>(config) : Unknown(config);
  }
  ASSIGN_OR_RETURN(JsonReader text, config.ObjectOrEmpty(kTextConfig, kInherited));
  ASSIGN_OR_RETURN(family, Recognise(text));
  return family != nullptr ? absl::StatusOr<JsonReader>(std::move(text)) : Unknown(text);
}

absl::StatusOr<ModelLayout> ReadModelLayout(const JsonReader& outer) {
  ASSIGN_OR_RETURN(const JsonReader config, LanguageConfig(outer));
  ModelLayout layout;
  ASSIGN_OR_RETURN(layout.family, Recognise(config));
  layout.model.family = std::string(layout.family->name);
  RETURN_IF_ERROR(ReadDtype(config, &layout));
  RETURN_IF_ERROR(ReadCommon(config, &layout));
  RETURN_IF_ERROR(layout.family->read(config, &layout));
  EXPERTMESH_CHECK(layout.layers.size() == layout.model.num_layers);
  RETURN_IF_ERROR(CheckExperts(config, layout.model));
  layout.model.parameters = CountParameters(layout);
  return layout;
}

}  // namespace expertmesh::checkpoint
