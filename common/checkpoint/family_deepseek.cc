// DeepSeekMoE-16B, DeepSeek-V2, DeepSeek-V3 (and Kimi-K2) and GLM-4-MoE. Multi-token-prediction
// layers behind num_hidden_layers are not part of the model served here; their tensors are ignored.
#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"
#include "common/json/json_text.h"

namespace expertmesh::checkpoint {
namespace {

constexpr float kEpsilon = 1e-20f;

constexpr Storage StorageWith(const ExpertPlaces& experts) {
  return {
      .gate = "mlp.gate.weight",
      .select_bias = "mlp.gate.e_score_correction_bias",
      .experts = experts,
      .shared = Separate("mlp.shared_experts.gate_proj.weight", "mlp.shared_experts.up_proj.weight",
                         "mlp.shared_experts.down_proj.weight")};
}

constexpr Storage kStorages[] = {
    StorageWith(Separate("mlp.experts.{expert}.gate_proj.weight",
                         "mlp.experts.{expert}.up_proj.weight",
                         "mlp.experts.{expert}.down_proj.weight")),
    StorageWith(Fused("mlp.experts.gate_up_proj", "mlp.experts.down_proj")),
};

constexpr absl::string_view kNoShared = "n_shared_experts is 0 or absent";

constexpr SyntheticOption kWithoutGroups[] = {
    SyntheticOption::kTopK, SyntheticOption::kDenseLayers, SyntheticOption::kMoeEvery,
    SyntheticOption::kDenseWidth, SyntheticOption::kSharedExperts};
constexpr SyntheticOption kGlmOptions[] = {
    SyntheticOption::kTopK, SyntheticOption::kDenseLayers, SyntheticOption::kDenseWidth,
    SyntheticOption::kSharedExperts, SyntheticOption::kGroups};
constexpr SyntheticOption kAllOptions[] = {
    SyntheticOption::kTopK,       SyntheticOption::kDenseLayers,   SyntheticOption::kMoeEvery,
    SyntheticOption::kDenseWidth, SyntheticOption::kSharedExperts, SyntheticOption::kGroups};

// Logits and scores in float32; torch is not asked to sort.
RoutingOptions DeepseekRouting() {
  RoutingOptions routing;
  routing.logit_dtype = LogitDtype::kF32;
  routing.weight_dtype = WeightDtype::kF32;
  routing.sorted_selection = false;
  return routing;
}

// The choice of DeepSeek-V3: a bias for selection, groups ranked by their two best.
absl::Status ReadBiasedChoice(const JsonReader& config, RoutingOptions* routing) {
  routing->select_bias = true;
  routing->group_score = GroupScore::kTopTwoSum;
  routing->masked_choice = -std::numeric_limits<float>::infinity();
  return ReadGroupLimit(config, routing);
}

// DeepSeekMoE and DeepSeek-V2: renormalised or scaled, never both.
absl::Status ReadExclusiveScale(const JsonReader& config, RoutingOptions* routing) {
  RETURN_IF_ERROR(ReadRenormalise(config, /*fallback=*/false, kEpsilon, routing));
  if (routing->top_k == 1) {
    routing->renormalise = Renormalise::kNone;
    routing->renormalise_epsilon = 0.0f;
  }
  ASSIGN_OR_RETURN(const float scale, config.FloatOr({"routed_scaling_factor"}, 1.0f));
  routing->scale = routing->renormalise == Renormalise::kNone ? scale : 1.0f;
  return absl::OkStatus();
}

absl::Status ReadMoeRouting(const JsonReader& config, RoutingOptions* routing) {
  RETURN_IF_ERROR(Expect(config, "scoring_func", "softmax"));
  return ReadExclusiveScale(config, routing);
}

absl::Status ReadV3Routing(const JsonReader& config, float scale, RoutingOptions* routing) {
  RETURN_IF_ERROR(Expect(config, "scoring_func", "sigmoid"));
  RETURN_IF_ERROR(Expect(config, "topk_method", "noaux_tc"));
  routing->score = ScoreFunction::kSigmoid;
  RETURN_IF_ERROR(ReadBiasedChoice(config, routing));
  RETURN_IF_ERROR(ReadRenormalise(config, /*fallback=*/true, kEpsilon, routing));
  ASSIGN_OR_RETURN(routing->scale, config.FloatOr({"routed_scaling_factor"}, scale));
  return absl::OkStatus();
}

absl::Status ReadV3Routing(const JsonReader& config, RoutingOptions* routing) {
  return ReadV3Routing(config, 2.5f, routing);
}

absl::Status ReadGlmRouting(const JsonReader& config, RoutingOptions* routing) {
  return ReadV3Routing(config, 1.0f, routing);
}

absl::Status ReadV2Routing(const JsonReader& config, RoutingOptions* routing) {
  ASSIGN_OR_RETURN(const std::string method, config.StringOr({"topk_method"}, "greedy"));
  ASSIGN_OR_RETURN(const std::string score, config.StringOr({"scoring_func"}, "softmax"));
  if (score != "softmax" && score != "sigmoid") {
    return config.Error(
        absl::StrCat("scoring_func = ", Quoted(score), " must be softmax or sigmoid"));
  }
  routing->score = score == "sigmoid" ? ScoreFunction::kSigmoid : ScoreFunction::kSoftmax;
  if (method == "noaux_tc") {
    RETURN_IF_ERROR(ReadBiasedChoice(config, routing));
    RETURN_IF_ERROR(ReadRenormalise(config, /*fallback=*/false, kEpsilon, routing));
    ASSIGN_OR_RETURN(routing->scale, config.FloatOr({"routed_scaling_factor"}, 1.0f));
    return absl::OkStatus();
  }
  if (method == "group_limited_greedy") {
    routing->group_score = GroupScore::kMax;
    routing->masked_choice = 0.0f;
    RETURN_IF_ERROR(ReadGroupLimit(config, routing));
  } else if (method != "greedy" && method != "gready") {  // Its first code has the second spelling.
    return config.Error(absl::StrCat("topk_method = ", Quoted(method),
                                     " must be greedy, group_limited_greedy or noaux_tc"));
  }
  return ReadExclusiveScale(config, routing);
}

using AddAttention = absl::FunctionRef<void(TensorList*)>;
using ReadRouting = absl::Status (*)(const JsonReader&, RoutingOptions*);

absl::Status ReadDecoder(const JsonReader& config, ReadRouting read_routing,
                         uint32_t dense_by_default, AddAttention attend, ModelLayout* layout) {
  MoeLayerDescription moe;
  moe.routing = DeepseekRouting();
  RETURN_IF_ERROR(ReadExpertCounts(config, &moe.routing));
  RETURN_IF_ERROR(read_routing(config, &moe.routing));
  RETURN_IF_ERROR(ReadSilu(config));
  RETURN_IF_ERROR(ReadExpert(config, "moe_intermediate_size", *layout, &moe.expert));
  RETURN_IF_ERROR(ReadSharedExperts(config, "n_shared_experts", &moe));
  ASSIGN_OR_RETURN(const Pattern sparse, AfterDenseLayers(config, dense_by_default));
  ASSIGN_OR_RETURN(const uint32_t dense_width, ReadDenseWidth(config, sparse));
  const uint64_t d_model = layout->model.d_model;
  const auto tensors = [&](uint32_t, bool has_experts, TensorList* list) {
    AddLayerNorms(d_model, list);
    attend(list);
    if (!has_experts) {
      list->Glu("mlp", d_model, dense_width);
    }
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({}, layout);
  return absl::OkStatus();
}

// Multi-head latent attention.
struct LatentAttention {
  uint64_t heads = 0;
  uint64_t q_rank = 0;  // 0: one plain projection.
  uint64_t kv_rank = 0;
  uint64_t nope = 0;
  uint64_t rope = 0;
  uint64_t value = 0;
  bool bias = false;

  void Add(uint64_t d_model, TensorList* list) const {
    if (q_rank == 0) {
      list->Linear("self_attn.q_proj", heads * (nope + rope), d_model);
    } else {
      list->Linear("self_attn.q_a_proj", q_rank, d_model, bias);
      list->Norm("self_attn.q_a_layernorm", q_rank);
      list->Linear("self_attn.q_b_proj", heads * (nope + rope), q_rank);
    }
    list->Linear("self_attn.kv_a_proj_with_mqa", kv_rank + rope, d_model, bias);
    list->Norm("self_attn.kv_a_layernorm", kv_rank);
    list->Linear("self_attn.kv_b_proj", heads * (nope + value), kv_rank);
    list->Linear("self_attn.o_proj", d_model, heads * value, bias);
  }
};

absl::StatusOr<LatentAttention> ReadLatentAttention(const JsonReader& config) {
  LatentAttention attention;
  ASSIGN_OR_RETURN(attention.heads, config.Positive({"num_attention_heads"}, kMaxWidth));
  ASSIGN_OR_RETURN(attention.kv_rank, config.PositiveOr({"kv_lora_rank"}, 512, kMaxWidth));
  ASSIGN_OR_RETURN(attention.nope, config.PositiveOr({"qk_nope_head_dim"}, 128, kMaxWidth));
  ASSIGN_OR_RETURN(attention.rope, config.PositiveOr({"qk_rope_head_dim"}, 64, kMaxWidth));
  ASSIGN_OR_RETURN(attention.value, config.PositiveOr({"v_head_dim"}, 128, kMaxWidth));
  ASSIGN_OR_RETURN(attention.bias, config.BoolOr({"attention_bias"}, false));
  if (!config.IsNull("q_lora_rank")) {
    ASSIGN_OR_RETURN(attention.q_rank, config.PositiveOr({"q_lora_rank"}, 1536, kMaxWidth));
  }
  return attention;
}

absl::Status ReadLatent(const JsonReader& config, ReadRouting routing, uint32_t dense_by_default,
                        ModelLayout* layout) {
  ASSIGN_OR_RETURN(const LatentAttention attention, ReadLatentAttention(config));
  const uint64_t d_model = layout->model.d_model;
  const auto attend = [&](TensorList* list) { attention.Add(d_model, list); };
  return ReadDecoder(config, routing, dense_by_default, attend, layout);
}

// What DeepSeek's own code makes of norm_topk_prob is not what transformers does.
void WarnOfNormalisedV2(const JsonReader& config, ModelLayout* layout) {
  const MoeLayerDescription* const moe =
      layout->model.layers.empty() ? nullptr : &layout->model.layers.front();
  if (moe != nullptr && moe->routing.renormalise != Renormalise::kNone &&
      !moe->routing.select_bias) {
    layout->warnings.push_back(absl::StrCat(
        config.Source(),
        ": norm_topk_prob = true: a token's weights are divided by their sum and not multiplied by "
        "routed_scaling_factor, as in DeepSeek's own code; transformers ignores the key and always "
        "multiplies. Set it to false for what transformers computes"));
  }
}

absl::Status ReadV2(const JsonReader& config, ModelLayout* layout) {
  RETURN_IF_ERROR(ReadLatent(config, &ReadV2Routing, 0, layout));
  WarnOfNormalisedV2(config, layout);
  return absl::OkStatus();
}

absl::Status ReadV3(const JsonReader& config, ModelLayout* layout) {
  return ReadLatent(config, &ReadV3Routing, 3, layout);
}

absl::Status ReadMoe(const JsonReader& config, ModelLayout* layout) {
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"attention_bias"}, false));
  const auto attend = [&](TensorList* list) {
    AddGroupedAttention(attention, d_model, bias, bias, list);
  };
  return ReadDecoder(config, &ReadMoeRouting, 0, attend, layout);
}

absl::Status ReadGlm(const JsonReader& config, ModelLayout* layout) {
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"attention_bias"}, false));
  ASSIGN_OR_RETURN(const bool norms, config.BoolOr({"use_qk_norm"}, false));
  const auto attend = [&](TensorList* list) {
    AddGroupedAttention(attention, d_model, bias, /*o_bias=*/false, list);
    if (norms) {
      list->Norm("self_attn.q_norm", attention.head_dim);
      list->Norm("self_attn.k_norm", attention.head_dim);
    }
  };
  return ReadDecoder(config, &ReadGlmRouting, 1, attend, layout);
}

nlohmann::ordered_json SyntheticMoe(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticDecoder(options);
  config["intermediate_size"] = SyntheticDenseWidth(options);
  config["moe_intermediate_size"] = options.intermediate_size;
  config["n_routed_experts"] = options.num_experts;
  config["num_experts_per_tok"] = SyntheticTopK(options);
  config["n_shared_experts"] = SyntheticSharedExperts(options);
  config["first_k_dense_replace"] = options.dense_layers;
  config["moe_layer_freq"] = options.moe_every;
  config["norm_topk_prob"] = false;
  config["scoring_func"] = "softmax";
  config["rope_scaling"] = nullptr;
  return config;
}

nlohmann::ordered_json SyntheticLatent(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticMoe(options);
  const uint32_t head_dim = config["head_dim"].get<uint32_t>();
  config.erase("head_dim");
  config["num_key_value_heads"] = config["num_attention_heads"];
  config["q_lora_rank"] = std::max(16u, options.d_model / 4);
  config["kv_lora_rank"] = std::max(16u, options.d_model / 8);
  config["qk_nope_head_dim"] = head_dim;
  config["qk_rope_head_dim"] = std::max(8u, head_dim / 2);
  config["v_head_dim"] = head_dim;
  config["n_group"] = options.n_group;
  config["topk_group"] = options.topk_group;
  return config;
}

nlohmann::ordered_json SyntheticV2(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticLatent(options);
  config["topk_method"] = options.n_group > 1 ? "group_limited_greedy" : "greedy";
  config["routed_scaling_factor"] = options.n_group > 1 ? 16.0 : 1.0;
  return config;
}

nlohmann::ordered_json SyntheticV3(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticLatent(options);
  config["norm_topk_prob"] = true;
  config["routed_scaling_factor"] = 2.5;
  config["scoring_func"] = "sigmoid";
  config["topk_method"] = "noaux_tc";
  config["num_nextn_predict_layers"] = 0;
  config["rope_interleave"] = true;
  return config;
}

nlohmann::ordered_json SyntheticGlm(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticMoe(options);
  config.erase("moe_layer_freq");
  config.erase("scoring_func");
  config["n_group"] = options.n_group;
  config["topk_group"] = options.topk_group;
  config["norm_topk_prob"] = true;
  config["routed_scaling_factor"] = 2.5;
  config["attention_bias"] = true;
  config["use_qk_norm"] = true;
  config["partial_rotary_factor"] = 0.5;
  return config;
}

}  // namespace

const Family& DeepseekMoeFamily() {
  static constexpr absl::string_view kTypes[] = {"deepseek"};
  static constexpr absl::string_view kArchitectures[] = {"DeepseekForCausalLM"};
  static const Family kFamily = {.name = "deepseek_moe",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kStorages,
                                 .why_absent = {.shared_experts = kNoShared},
                                 .synthetic_options = kWithoutGroups,
                                 .read = &ReadMoe,
                                 .synthetic_config = &SyntheticMoe};
  return kFamily;
}

const Family& DeepseekV2Family() {
  static constexpr absl::string_view kTypes[] = {"deepseek_v2"};
  static constexpr absl::string_view kArchitectures[] = {"DeepseekV2ForCausalLM"};
  static const Family kFamily = {
      .name = "deepseek_v2",
      .model_types = kTypes,
      .architectures = kArchitectures,
      .stacks = kDecoder,
      .storages = kStorages,
      .fp8 = true,
      .why_absent = {.shared_experts = kNoShared, .select_bias = "topk_method is not noaux_tc"},
      .synthetic_options = kAllOptions,
      .read = &ReadV2,
      .synthetic_config = &SyntheticV2};
  return kFamily;
}

const Family& DeepseekV3Family() {
  static constexpr absl::string_view kTypes[] = {"deepseek_v3", "kimi_k2"};
  static constexpr absl::string_view kArchitectures[] = {"DeepseekV3ForCausalLM"};
  static const Family kFamily = {.name = "deepseek_v3",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kStorages,
                                 .fp8 = true,
                                 .why_absent = {.shared_experts = kNoShared},
                                 .synthetic_options = kAllOptions,
                                 .read = &ReadV3,
                                 .synthetic_config = &SyntheticV3};
  return kFamily;
}

const Family& Glm4MoeFamily() {
  static constexpr absl::string_view kTypes[] = {"glm4_moe"};
  static constexpr absl::string_view kArchitectures[] = {"Glm4MoeForCausalLM"};
  static const Family kFamily = {.name = "glm4_moe",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kStorages,
                                 .fp8 = true,
                                 .why_absent = {.shared_experts = kNoShared},
                                 .synthetic_options = kGlmOptions,
                                 .read = &ReadGlm,
                                 .synthetic_config = &SyntheticGlm};
  return kFamily;
}

}  // namespace expertmesh::checkpoint
