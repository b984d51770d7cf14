#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_helpers.h"

namespace expertmesh {
namespace {

constexpr absl::string_view kModelTypes[] = {"qwen3_moe"};
constexpr absl::string_view kArchitectures[] = {"Qwen3MoeForCausalLM"};

absl::Status ReadLayers(const ConfigReader& config, MoeLayerDescription layer,
                        ModelLayout* layout) {
  ASSIGN_OR_RETURN(const uint32_t step, config.PositiveOr({"decoder_sparse_step"}, 1));
  ASSIGN_OR_RETURN(const std::vector<uint32_t> dense, config.WholeNumbers("mlp_only_layers"));
  for (const uint32_t index : dense) {
    if (index >= layout->model.num_layers) {
      return config.Error(absl::StrCat("mlp_only_layers holds ", index,
                                       ", but num_hidden_layers = ", layout->model.num_layers));
    }
  }
  for (layer.layer = 0; layer.layer < layout->model.num_layers; ++layer.layer) {
    const bool is_dense = std::find(dense.begin(), dense.end(), layer.layer) != dense.end();
    if (!is_dense && (layer.layer + 1) % step == 0) {
      layout->model.layers.push_back(layer);
    }
  }
  if (layout->model.layers.size() < layout->model.num_layers) {
    ASSIGN_OR_RETURN(layout->dense_intermediate_size,
                     config.Positive({"intermediate_size"}, kMaxWidth));
  }
  return absl::OkStatus();
}

absl::Status Read(const ConfigReader& config, ModelLayout* layout) {
  MoeLayerDescription layer;
  RoutingOptions& routing = layer.routing;
  RETURN_IF_ERROR(ReadExpertCounts(config, &routing));
  ASSIGN_OR_RETURN(const bool renormalise, config.BoolOr({"norm_topk_prob"}, false));
  routing.logit_dtype = LogitDType::kModel;
  routing.score = ScoreFunction::kSoftmax;
  routing.renormalise = renormalise ? Renormalise::kSum : Renormalise::kNone;
  routing.weight_dtype = WeightDType::kModel;
  RETURN_IF_ERROR(ReadActivation(config));
  layer.expert.d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(layer.expert.intermediate_size,
                   config.Positive({"moe_intermediate_size"}, kMaxWidth));
  RETURN_IF_ERROR(ReadLayers(config, layer, layout));

  ASSIGN_OR_RETURN(const GroupedAttention attention,
                   ReadGroupedAttention(config, layout->model.d_model));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"attention_bias"}, false));
  AddLayerNorms(layout);
  AddGroupedAttention(attention, bias, layout);
  for (const absl::string_view name : {"self_attn.q_norm.weight", "self_attn.k_norm.weight"}) {
    AddEveryLayer(name, {attention.head_dim}, TensorKind::kNorm, layout);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> SyntheticConfig(const SyntheticOptions& options) {
  RETURN_IF_ERROR(RefuseOption(options.n_group != 1, "n_group", "qwen3_moe"));
  nlohmann::ordered_json config = SyntheticCommon(options, "qwen3_moe", "Qwen3MoeForCausalLM");
  const GroupedAttention attention = SyntheticAttention(options);
  std::vector<uint32_t> dense;
  for (uint32_t layer = 0; layer < std::min(options.dense_layers, options.num_layers); ++layer) {
    dense.push_back(layer);
  }
  config["intermediate_size"] = SyntheticDenseWidth(options);
  config["moe_intermediate_size"] = options.intermediate_size;
  config["num_attention_heads"] = attention.heads;
  config["num_key_value_heads"] = attention.kv_heads;
  config["head_dim"] = attention.head_dim;
  config["attention_bias"] = false;
  config["num_experts"] = options.num_experts;
  config["num_experts_per_tok"] = options.top_k;
  config["norm_topk_prob"] = true;
  config["decoder_sparse_step"] = 1;
  config["mlp_only_layers"] = dense;
  config["sliding_window"] = nullptr;
  return config.dump(2);
}

}  // namespace

const Family& Qwen3MoeFamily() {
  static const Family kFamily = {
      .name = "qwen3_moe",
      .model_types = kModelTypes,
      .architectures = kArchitectures,
      .patterns =
          {
              .gate = "model.layers.{layer}.mlp.gate.weight",
              .select_bias = "",
              .expert_gate = "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight",
              .expert_up = "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight",
              .expert_down = "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight",
              .shared_gate = "",
              .shared_up = "",
              .shared_down = "",
              .dense_gate = "model.layers.{layer}.mlp.gate_proj.weight",
              .dense_up = "model.layers.{layer}.mlp.up_proj.weight",
              .dense_down = "model.layers.{layer}.mlp.down_proj.weight",
          },
      .read = &Read,
      .synthetic_config = &SyntheticConfig,
  };
  return kFamily;
}

}  // namespace expertmesh
