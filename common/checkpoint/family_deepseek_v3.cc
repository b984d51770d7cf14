#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/json_text.h"

namespace expertmesh {
namespace {

// The multi-token-prediction layers behind num_hidden_layers are not part of the model served here;
// their tensors are ignored.
constexpr absl::string_view kModelTypes[] = {"deepseek_v3", "kimi_k2"};
constexpr absl::string_view kArchitectures[] = {"DeepseekV3ForCausalLM"};

// A key that is there must hold the only value this family is implemented with.
absl::Status Expect(const ConfigReader& config, absl::string_view key, absl::string_view only) {
  ASSIGN_OR_RETURN(const std::string value, config.StringOr({key}, only));
  if (value != only) {
    return config.Error(
        absl::StrCat(key, " = ", Quoted(value), " must be ", only, " for family deepseek_v3"));
  }
  return absl::OkStatus();
}

absl::Status ReadRouting(const ConfigReader& config, RoutingOptions* routing) {
  RETURN_IF_ERROR(Expect(config, "scoring_func", "sigmoid"));
  RETURN_IF_ERROR(Expect(config, "topk_method", "noaux_tc"));
  routing->logit_dtype = LogitDType::kF32;
  routing->score = ScoreFunction::kSigmoid;
  routing->select_bias = true;
  routing->group_score = GroupScore::kTopTwoSum;
  routing->masked_choice = -std::numeric_limits<float>::infinity();
  routing->sorted_selection = false;
  RETURN_IF_ERROR(ReadExpertCounts(config, routing));
  RETURN_IF_ERROR(ReadGroupLimit(config, routing));
  ASSIGN_OR_RETURN(const bool renormalise, config.BoolOr({"norm_topk_prob"}, true));
  routing->renormalise = renormalise ? Renormalise::kSum : Renormalise::kNone;
  routing->renormalise_epsilon = renormalise ? 1e-20f : 0.0f;
  ASSIGN_OR_RETURN(routing->scale, config.FloatOr({"routed_scaling_factor"}, 2.5f));
  routing->weight_dtype = WeightDType::kF32;
  return absl::OkStatus();
}

absl::Status ReadLayers(const ConfigReader& config, MoeLayerDescription layer,
                        ModelLayout* layout) {
  ASSIGN_OR_RETURN(const uint32_t dense, config.WholeOr({"first_k_dense_replace"}, 3));
  ASSIGN_OR_RETURN(const uint32_t every, config.PositiveOr({"moe_layer_freq"}, 1));
  for (layer.layer = 0; layer.layer < layout->model.num_layers; ++layer.layer) {
    if (layer.layer >= dense && layer.layer % every == 0) {
      layout->model.layers.push_back(layer);
    }
  }
  if (layout->model.layers.size() < layout->model.num_layers) {
    ASSIGN_OR_RETURN(layout->dense_intermediate_size,
                     config.Positive({"intermediate_size"}, kMaxWidth));
  }
  return absl::OkStatus();
}

// Multi-head latent attention.
absl::Status ReadAttention(const ConfigReader& config, ModelLayout* layout) {
  ASSIGN_OR_RETURN(const uint64_t heads, config.Positive({"num_attention_heads"}, kMaxWidth));
  ASSIGN_OR_RETURN(const uint64_t kv_rank, config.PositiveOr({"kv_lora_rank"}, 512, kMaxWidth));
  ASSIGN_OR_RETURN(const uint64_t nope, config.PositiveOr({"qk_nope_head_dim"}, 128, kMaxWidth));
  ASSIGN_OR_RETURN(const uint64_t rope, config.PositiveOr({"qk_rope_head_dim"}, 64, kMaxWidth));
  ASSIGN_OR_RETURN(const uint64_t value, config.PositiveOr({"v_head_dim"}, 128, kMaxWidth));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"attention_bias"}, false));
  const uint64_t d_model = layout->model.d_model;
  AddLayerNorms(layout);
  if (config.IsNull("q_lora_rank")) {
    AddLinear("self_attn.q_proj", heads * (nope + rope), d_model, /*bias=*/false, layout);
  } else {
    ASSIGN_OR_RETURN(const uint64_t q_rank, config.PositiveOr({"q_lora_rank"}, 1536, kMaxWidth));
    AddLinear("self_attn.q_a_proj", q_rank, d_model, bias, layout);
    AddEveryLayer("self_attn.q_a_layernorm.weight", {q_rank}, TensorKind::kNorm, layout);
    AddLinear("self_attn.q_b_proj", heads * (nope + rope), q_rank, /*bias=*/false, layout);
  }
  AddLinear("self_attn.kv_a_proj_with_mqa", kv_rank + rope, d_model, bias, layout);
  AddEveryLayer("self_attn.kv_a_layernorm.weight", {kv_rank}, TensorKind::kNorm, layout);
  AddLinear("self_attn.kv_b_proj", heads * (nope + value), kv_rank, /*bias=*/false, layout);
  AddLinear("self_attn.o_proj", d_model, heads * value, bias, layout);
  return absl::OkStatus();
}

absl::Status Read(const ConfigReader& config, ModelLayout* layout) {
  MoeLayerDescription layer;
  RETURN_IF_ERROR(ReadRouting(config, &layer.routing));
  RETURN_IF_ERROR(ReadActivation(config));
  layer.expert.d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(layer.expert.intermediate_size,
                   config.Positive({"moe_intermediate_size"}, kMaxWidth));
  ASSIGN_OR_RETURN(const uint32_t shared, config.WholeOr({"n_shared_experts"}, 0));
  if (uint64_t{shared} * layer.expert.intermediate_size > kMaxWidth) {
    return config.Error(
        absl::StrCat("n_shared_experts = ", shared, " times moe_intermediate_size = ",
                     layer.expert.intermediate_size, " must not exceed ", kMaxWidth));
  }
  layer.shared_intermediate_size = shared * layer.expert.intermediate_size;
  RETURN_IF_ERROR(ReadLayers(config, layer, layout));
  return ReadAttention(config, layout);
}

absl::StatusOr<std::string> SyntheticConfig(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticCommon(options, "deepseek_v3", "DeepseekV3ForCausalLM");
  const GroupedAttention attention = SyntheticAttention(options);
  config["intermediate_size"] = SyntheticDenseWidth(options);
  config["moe_intermediate_size"] = options.intermediate_size;
  config["num_attention_heads"] = attention.heads;
  config["num_key_value_heads"] = attention.heads;
  config["q_lora_rank"] = std::max(16u, options.d_model / 4);
  config["kv_lora_rank"] = std::max(16u, options.d_model / 8);
  config["qk_nope_head_dim"] = attention.head_dim;
  config["qk_rope_head_dim"] = std::max(8u, attention.head_dim / 2);
  config["v_head_dim"] = attention.head_dim;
  config["attention_bias"] = false;
  config["n_routed_experts"] = options.num_experts;
  config["num_experts_per_tok"] = options.top_k;
  config["n_shared_experts"] = options.shared_experts;
  config["n_group"] = options.n_group;
  config["topk_group"] = options.topk_group;
  config["first_k_dense_replace"] = options.dense_layers;
  config["moe_layer_freq"] = 1;
  config["norm_topk_prob"] = true;
  config["routed_scaling_factor"] = 2.5;
  config["scoring_func"] = "sigmoid";
  config["topk_method"] = "noaux_tc";
  config["num_nextn_predict_layers"] = 0;
  config["rope_interleave"] = true;
  config["rope_scaling"] = nullptr;
  return config.dump(2);
}

}  // namespace

const Family& DeepseekV3Family() {
  static const Family kFamily = {
      .name = "deepseek_v3",
      .model_types = kModelTypes,
      .architectures = kArchitectures,
      .patterns =
          {
              .gate = "model.layers.{layer}.mlp.gate.weight",
              .select_bias = "model.layers.{layer}.mlp.gate.e_score_correction_bias",
              .expert_gate = "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight",
              .expert_up = "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight",
              .expert_down = "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight",
              .shared_gate = "model.layers.{layer}.mlp.shared_experts.gate_proj.weight",
              .shared_up = "model.layers.{layer}.mlp.shared_experts.up_proj.weight",
              .shared_down = "model.layers.{layer}.mlp.shared_experts.down_proj.weight",
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
