// Llama-4's language model: the weight multiplies the expert's input, experts lie inputs first.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"

namespace expertmesh::checkpoint {
namespace {

constexpr ExpertPlaces kShared = Separate("feed_forward.shared_expert.gate_proj.weight",
                                          "feed_forward.shared_expert.up_proj.weight",
                                          "feed_forward.shared_expert.down_proj.weight");
constexpr Storage kStorages[] = {
    {.gate = "feed_forward.router.weight",
     .experts =
         FusedTransposed("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"),
     .shared = kShared},
    {.gate = "feed_forward.router.weight",
     .experts = Separate("feed_forward.experts.{expert}.gate_proj.weight",
                         "feed_forward.experts.{expert}.up_proj.weight",
                         "feed_forward.experts.{expert}.down_proj.weight"),
     .shared = kShared},
};

constexpr SyntheticOption kOptions[] = {SyntheticOption::kTopK, SyntheticOption::kDenseLayers,
                                        SyntheticOption::kMoeEvery, SyntheticOption::kDenseWidth};

// moe_layers lists them, or every interleave_moe_layer_step-th.
absl::StatusOr<Pattern> ReadPattern(const JsonReader& config) {
  ASSIGN_OR_RETURN(Pattern sparse, EveryLayer(config));
  ASSIGN_OR_RETURN(const uint32_t step, config.PositiveOr({"interleave_moe_layer_step"}, 1));
  ASSIGN_OR_RETURN(const std::vector<uint32_t> listed, config.WholeNumbers("moe_layers"));
  for (uint32_t layer = 0; layer < sparse.size(); ++layer) {
    sparse[layer] = !config.Has("moe_layers") && (layer + 1) % step == 0;
  }
  for (const uint32_t layer : listed) {
    if (layer >= sparse.size()) {
      return config.Error(
          absl::StrCat("moe_layers holds ", layer, ", but num_hidden_layers = ", sparse.size()));
    }
    sparse[layer] = true;
  }
  return sparse;
}

absl::Status Read(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  moe.routing = SoftmaxRouting();
  moe.routing.score = ScoreFunction::kSigmoid;
  moe.routing.scope = ScoreScope::kSelected;
  moe.routing.apply = ApplyWeight::kInput;
  RETURN_IF_ERROR(ReadExpertCounts(config, &moe.routing));
  RETURN_IF_ERROR(ReadSilu(config));
  RETURN_IF_ERROR(ReadExpert(config, "intermediate_size", *layout, &moe.expert));
  moe.shared_intermediate_size = moe.expert.intermediate_size;
  ASSIGN_OR_RETURN(const Pattern sparse, ReadPattern(config));
  ASSIGN_OR_RETURN(const uint32_t dense_width,
                   ReadDenseWidth(config, sparse, "intermediate_size_mlp"));
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"attention_bias"}, false));
  const auto tensors = [&](uint32_t, bool has_experts, TensorList* list) {
    AddLayerNorms(d_model, list);
    AddGroupedAttention(attention, d_model, bias, bias, list);
    if (!has_experts) {
      list->Glu("feed_forward", d_model, dense_width);
    }
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({}, layout);
  return absl::OkStatus();
}

nlohmann::ordered_json Synthetic(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticDecoder(options);
  config["intermediate_size"] = options.intermediate_size;
  config["intermediate_size_mlp"] = SyntheticDenseWidth(options);
  config["num_local_experts"] = options.num_experts;
  config["num_experts_per_tok"] = options.top_k.value_or(1);
  config["interleave_moe_layer_step"] = options.moe_every;
  if (options.dense_layers > 0) {
    std::vector<uint32_t> layers;
    for (uint32_t layer = options.dense_layers; layer < options.num_layers; ++layer) {
      if ((layer + 1) % options.moe_every == 0) {
        layers.push_back(layer);
      }
    }
    config["moe_layers"] = layers;
  }
  config["attention_chunk_size"] = 8192;
  config["use_qk_norm"] = true;
  config["rope_scaling"] = nullptr;
  return config;
}

}  // namespace

const Family& Llama4Family() {
  static constexpr absl::string_view kTypes[] = {"llama4_text"};
  static constexpr absl::string_view kArchitectures[] = {"Llama4ForCausalLM"};
  static const Family kFamily = {.name = "llama4",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kStorages,
                                 .synthetic_options = kOptions,
                                 .read = &Read,
                                 .synthetic_config = &Synthetic};
  return kFamily;
}

}  // namespace expertmesh::checkpoint
