// Mixtral, and two that store their layers as it does: Phi-3.5-MoE and MiniMax-M2.
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"

namespace expertmesh::checkpoint {
namespace {

constexpr ExpertPlaces kExperts = Separate("block_sparse_moe.experts.{expert}.w1.weight",
                                           "block_sparse_moe.experts.{expert}.w3.weight",
                                           "block_sparse_moe.experts.{expert}.w2.weight");
constexpr ExpertPlaces kFusedExperts = Fused("mlp.experts.gate_up_proj", "mlp.experts.down_proj");

constexpr Storage kMixtralStorages[] = {
    {.gate = "block_sparse_moe.gate.weight", .experts = kExperts},
    {.gate = "mlp.gate.weight", .experts = kFusedExperts},
};
constexpr Storage kPhimoeStorages[] = {
    {.gate = "block_sparse_moe.gate.weight", .experts = kExperts},
    {.gate = "mlp.router.weight", .experts = kFusedExperts},
};
constexpr Storage kMinimaxStorages[] = {
    {.gate = "block_sparse_moe.gate.weight",
     .select_bias = "block_sparse_moe.e_score_correction_bias",
     .experts = kExperts},
    {.gate = "mlp.gate.weight",
     .select_bias = "mlp.e_score_correction_bias",
     .experts = kFusedExperts},
};

constexpr SyntheticOption kTopK[] = {SyntheticOption::kTopK};

absl::Status ReadMixtral(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  moe.routing = SoftmaxRouting();
  moe.routing.renormalise = Renormalise::kSum;
  RETURN_IF_ERROR(ReadExpertCounts(config, &moe.routing));
  RETURN_IF_ERROR(ReadSilu(config));
  RETURN_IF_ERROR(ReadExpert(config, "intermediate_size", *layout, &moe.expert));
  ASSIGN_OR_RETURN(const Pattern sparse, EveryLayer(config));
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  const auto tensors = [&](uint32_t, bool, TensorList* list) {
    AddLayerNorms(d_model, list);
    AddGroupedAttention(attention, d_model, false, false, list);
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({}, layout);
  return absl::OkStatus();
}

absl::Status ReadPhimoe(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  moe.routing = SoftmaxRouting();
  moe.routing.choice = Choice::kSparseMixer;
  moe.routing.score_dtype = ScoreDtype::kModel;
  RETURN_IF_ERROR(ReadExpertCounts(config, &moe.routing));
  if (moe.routing.top_k != 2) {
    return config.Error(
        absl::StrCat("num_experts_per_tok = ", moe.routing.top_k, " must be 2 for this family"));
  }
  ASSIGN_OR_RETURN(moe.routing.sparse_mixer_epsilon,
                   config.FloatOr({"router_jitter_noise"}, 0.01f));
  RETURN_IF_ERROR(ReadSilu(config));
  RETURN_IF_ERROR(ReadExpert(config, "intermediate_size", *layout, &moe.expert));
  ASSIGN_OR_RETURN(const Pattern sparse, EveryLayer(config));
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"attention_bias"}, false));
  ASSIGN_OR_RETURN(const bool head_bias, config.BoolOr({"lm_head_bias"}, false));
  const auto tensors = [&](uint32_t, bool, TensorList* list) {
    AddLayerNorms(d_model, list, /*bias=*/true);
    AddGroupedAttention(attention, d_model, bias, bias, list);
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({.norm_bias = true, .head_bias = head_bias}, layout);
  return absl::OkStatus();
}

absl::Status ReadMinimax(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  moe.routing = SoftmaxRouting();
  RETURN_IF_ERROR(Expect(config, "scoring_func", "sigmoid"));
  moe.routing.score = ScoreFunction::kSigmoid;
  ASSIGN_OR_RETURN(moe.routing.select_bias, config.BoolOr({"use_routing_bias"}, true));
  moe.routing.sorted_selection = false;
  moe.routing.renormalise = Renormalise::kSum;
  RETURN_IF_ERROR(ReadExpertCounts(config, &moe.routing));
  RETURN_IF_ERROR(ReadSilu(config));
  RETURN_IF_ERROR(ReadExpert(config, "intermediate_size", *layout, &moe.expert));
  ASSIGN_OR_RETURN(const Pattern sparse, EveryLayer(config));
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  ASSIGN_OR_RETURN(const bool norms, config.BoolOr({"use_qk_norm"}, true));
  const auto tensors = [&](uint32_t, bool, TensorList* list) {
    AddLayerNorms(d_model, list);
    AddGroupedAttention(attention, d_model, false, false, list);
    if (norms) {
      list->Norm("self_attn.q_norm", attention.q_width());
      list->Norm("self_attn.k_norm", attention.kv_width());
    }
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({}, layout);
  return absl::OkStatus();
}

nlohmann::ordered_json SyntheticMixtral(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticDecoder(options);
  config["intermediate_size"] = options.intermediate_size;
  config["num_local_experts"] = options.num_experts;
  config["num_experts_per_tok"] = SyntheticTopK(options);
  config["router_jitter_noise"] = 0.0;
  config["sliding_window"] = nullptr;
  return config;
}

nlohmann::ordered_json SyntheticPhimoe(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticMixtral(options);
  // The heads share d_model among them.
  config["num_key_value_heads"] = config["num_attention_heads"];
  config["head_dim"] = options.d_model / config["num_attention_heads"].get<uint32_t>();
  config["attention_bias"] = true;
  config["lm_head_bias"] = true;
  config["router_jitter_noise"] = 0.01;
  config["input_jitter_noise"] = 0.0;
  return config;
}

nlohmann::ordered_json SyntheticMinimax(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticMixtral(options);
  config["scoring_func"] = "sigmoid";
  config["use_routing_bias"] = true;
  config["use_qk_norm"] = true;
  config["qk_norm_type"] = "per_layer";
  config["rotary_dim"] = SyntheticAttention(options).head_dim / 2;
  return config;
}

}  // namespace

const Family& MixtralFamily() {
  static constexpr absl::string_view kTypes[] = {"mixtral"};
  static constexpr absl::string_view kArchitectures[] = {"MixtralForCausalLM"};
  static const Family kFamily = {.name = "mixtral",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kMixtralStorages,
                                 .synthetic_options = kTopK,
                                 .read = &ReadMixtral,
                                 .synthetic_config = &SyntheticMixtral};
  return kFamily;
}

const Family& PhimoeFamily() {
  static constexpr absl::string_view kTypes[] = {"phimoe"};
  static constexpr absl::string_view kArchitectures[] = {"PhimoeForCausalLM", "PhiMoEForCausalLM"};
  static const Family kFamily = {.name = "phimoe",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kPhimoeStorages,
                                 .read = &ReadPhimoe,
                                 .synthetic_config = &SyntheticPhimoe};
  return kFamily;
}

const Family& MinimaxM2Family() {
  static constexpr absl::string_view kTypes[] = {"minimax_m2"};
  static constexpr absl::string_view kArchitectures[] = {"MiniMaxM2ForCausalLM"};
  static const Family kFamily = {.name = "minimax_m2",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kMinimaxStorages,
                                 .fp8 = true,
                                 .why_absent = {.select_bias = "use_routing_bias = false"},
                                 .synthetic_options = kTopK,
                                 .read = &ReadMinimax,
                                 .synthetic_config = &SyntheticMinimax};
  return kFamily;
}

}  // namespace expertmesh::checkpoint
