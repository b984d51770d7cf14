// LFM2-MoE: attention and short convolutions, sigmoid scores in the activations' dtype.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"
#include "common/json/json_text.h"

namespace expertmesh::checkpoint {
namespace {

constexpr Storage StorageWith(const ExpertPlaces& experts) {
  return {.gate = "feed_forward.gate.weight",
          .select_bias = "feed_forward.expert_bias",
          .experts = experts};
}

constexpr Storage kStorages[] = {
    StorageWith(Separate("feed_forward.experts.{expert}.w1.weight",
                         "feed_forward.experts.{expert}.w3.weight",
                         "feed_forward.experts.{expert}.w2.weight")),
    StorageWith(Fused("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj")),
};
constexpr SyntheticOption kOptions[] = {SyntheticOption::kTopK, SyntheticOption::kDenseLayers,
                                        SyntheticOption::kDenseWidth};

absl::Status ReadRouting(const JsonReader& config, RoutingOptions* routing) {
  *routing = SoftmaxRouting();
  routing->score = ScoreFunction::kSigmoid;
  routing->score_dtype = ScoreDtype::kModel;
  RETURN_IF_ERROR(ReadExpertCounts(config, routing));
  ASSIGN_OR_RETURN(routing->select_bias, config.BoolOr({"use_expert_bias"}, true));
  RETURN_IF_ERROR(ReadRenormalise(config, /*fallback=*/true, 1e-6f, routing));
  ASSIGN_OR_RETURN(routing->scale, config.FloatOr({"routed_scaling_factor"}, 1.0f));
  return absl::OkStatus();
}

// Which layers attend; the others convolve.
absl::StatusOr<Pattern> ReadLayerTypes(const JsonReader& config, size_t layers) {
  ASSIGN_OR_RETURN(const std::vector<std::string> types, config.Strings("layer_types"));
  if (types.size() != layers) {
    return config.Error(absl::StrCat("layer_types names ", types.size(),
                                     " layers, but num_hidden_layers = ", layers));
  }
  Pattern attends;
  for (const std::string& type : types) {
    if (type != "full_attention" && type != "conv") {
      return config.Error(
          absl::StrCat("layer_types holds ", Quoted(type), "; known are full_attention and conv"));
    }
    attends.push_back(type == "full_attention");
  }
  return attends;
}

absl::Status Read(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  RETURN_IF_ERROR(ReadRouting(config, &moe.routing));
  RETURN_IF_ERROR(ReadExpert(config, "moe_intermediate_size", *layout, &moe.expert));
  ASSIGN_OR_RETURN(Pattern sparse, EveryLayer(config));
  ASSIGN_OR_RETURN(const uint32_t dense, config.WholeOr({"num_dense_layers"}, 2));
  std::fill_n(sparse.begin(), std::min<size_t>(dense, sparse.size()), false);
  ASSIGN_OR_RETURN(const uint64_t dense_width, ReadDenseWidth(config, sparse));
  ASSIGN_OR_RETURN(const Pattern attends, ReadLayerTypes(config, sparse.size()));
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  ASSIGN_OR_RETURN(const uint64_t kernel, config.PositiveOr({"conv_L_cache"}, 3, kMaxWidth));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"conv_bias"}, false));
  const auto tensors = [&](uint32_t index, bool has_experts, TensorList* list) {
    list->Norm("operator_norm", d_model);
    list->Norm("ffn_norm", d_model);
    if (attends[index]) {
      AddGroupedAttention(attention, d_model, false, false, list, "out_proj");
      list->Norm("self_attn.q_layernorm", attention.head_dim);
      list->Norm("self_attn.k_layernorm", attention.head_dim);
    } else {
      list->Linear("conv.in_proj", 3 * d_model, d_model, bias);
      list->Add("conv.conv.weight", {d_model, 1, kernel}, TensorKind::kPlainLinear, kernel);
      if (bias) {
        list->Add("conv.conv.bias", {d_model}, TensorKind::kBias);
      }
      list->Linear("conv.out_proj", d_model, d_model, bias);
    }
    if (!has_experts) {
      list->Linear("feed_forward.w1", dense_width, d_model);
      list->Linear("feed_forward.w3", dense_width, d_model);
      list->Linear("feed_forward.w2", d_model, dense_width);
    }
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({.norm = "embedding_norm"}, layout);
  return absl::OkStatus();
}

nlohmann::ordered_json Synthetic(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticDecoder(options);
  config["head_dim"] = options.d_model / config["num_attention_heads"].get<uint32_t>();
  config["intermediate_size"] = SyntheticDenseWidth(options);
  config["moe_intermediate_size"] = options.intermediate_size;
  config["num_experts"] = options.num_experts;
  config["num_experts_per_tok"] = SyntheticTopK(options);
  config["num_dense_layers"] = options.dense_layers;
  config["norm_topk_prob"] = true;
  config["use_expert_bias"] = true;
  config["routed_scaling_factor"] = 1.0;
  config["conv_L_cache"] = 3;
  config["conv_bias"] = false;
  std::vector<std::string> types;
  for (uint32_t layer = 0; layer < options.num_layers; ++layer) {
    types.push_back(layer % 2 == 0 ? "conv" : "full_attention");
  }
  config["layer_types"] = types;
  config["norm_eps"] = 1e-5;
  config.erase("rms_norm_eps");
  config["tie_word_embeddings"] = true;
  return config;
}

}  // namespace

const Family& Lfm2MoeFamily() {
  static constexpr absl::string_view kTypes[] = {"lfm2_moe"};
  static constexpr absl::string_view kArchitectures[] = {"Lfm2MoeForCausalLM"};
  static const Family kFamily = {.name = "lfm2_moe",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kStorages,
                                 .tied_by_default = true,
                                 .why_absent = {.select_bias = "use_expert_bias = false"},
                                 .synthetic_options = kOptions,
                                 .read = &Read,
                                 .synthetic_config = &Synthetic};
  return kFamily;
}

}  // namespace expertmesh::checkpoint
