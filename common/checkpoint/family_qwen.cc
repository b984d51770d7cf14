// Qwen2-MoE, Qwen3-MoE and OLMoE: softmax over all experts, the best taken, renormalised or not.
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"

namespace expertmesh::checkpoint {
namespace {

constexpr ExpertPlaces kExperts =
    Separate("mlp.experts.{expert}.gate_proj.weight", "mlp.experts.{expert}.up_proj.weight",
             "mlp.experts.{expert}.down_proj.weight");
constexpr ExpertPlaces kFusedExperts = Fused("mlp.experts.gate_up_proj", "mlp.experts.down_proj");
constexpr ExpertPlaces kShared =
    Separate("mlp.shared_expert.gate_proj.weight", "mlp.shared_expert.up_proj.weight",
             "mlp.shared_expert.down_proj.weight");

constexpr Storage kStorages[] = {
    {.gate = "mlp.gate.weight", .experts = kExperts},
    {.gate = "mlp.gate.weight", .experts = kFusedExperts},
};
constexpr Storage kStoragesWithShared[] = {
    {.gate = "mlp.gate.weight",
     .shared_gate = "mlp.shared_expert_gate.weight",
     .experts = kExperts,
     .shared = kShared},
    {.gate = "mlp.gate.weight",
     .shared_gate = "mlp.shared_expert_gate.weight",
     .experts = kFusedExperts,
     .shared = kShared},
};

constexpr SyntheticOption kTopK[] = {SyntheticOption::kTopK};
constexpr SyntheticOption kTopKAndDense[] = {SyntheticOption::kTopK, SyntheticOption::kDenseLayers,
                                             SyntheticOption::kMoeEvery,
                                             SyntheticOption::kDenseWidth};
constexpr SyntheticOption kTopKDenseAndShared[] = {
    SyntheticOption::kTopK, SyntheticOption::kDenseLayers, SyntheticOption::kMoeEvery,
    SyntheticOption::kDenseWidth, SyntheticOption::kSharedExperts};

absl::Status ReadRouting(const JsonReader& config, RoutingOptions* routing) {
  *routing = SoftmaxRouting();
  RETURN_IF_ERROR(ReadExpertCounts(config, routing));
  return ReadRenormalise(config, /*fallback=*/false, 0.0f, routing);
}

// Both Qwen families; they differ in shared experts and in attention.
absl::Status ReadQwen(const JsonReader& config, bool shared,
                      absl::FunctionRef<void(const GroupedAttention&, TensorList*)> attend,
                      ModelLayout* layout) {
  MoeLayerDescription moe;
  RETURN_IF_ERROR(ReadRouting(config, &moe.routing));
  RETURN_IF_ERROR(ReadSilu(config));
  RETURN_IF_ERROR(ReadExpert(config, "moe_intermediate_size", *layout, &moe.expert));
  if (shared) {
    ASSIGN_OR_RETURN(moe.shared_intermediate_size,
                     config.Positive({"shared_expert_intermediate_size"}, kMaxWidth));
    moe.shared_gate = true;
  }
  ASSIGN_OR_RETURN(const Pattern sparse, EverySparseStep(config));
  ASSIGN_OR_RETURN(const uint32_t dense_width, ReadDenseWidth(config, sparse));
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  const auto tensors = [&](uint32_t, bool has_experts, TensorList* list) {
    AddLayerNorms(d_model, list);
    attend(attention, list);
    if (!has_experts) {
      list->Glu("mlp", d_model, dense_width);
    }
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({}, layout);
  return absl::OkStatus();
}

absl::Status ReadQwen2(const JsonReader& config, ModelLayout* layout) {
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"qkv_bias"}, true));
  const uint64_t d_model = layout->model.d_model;
  const auto attend = [&](const GroupedAttention& attention, TensorList* list) {
    AddGroupedAttention(attention, d_model, bias, false, list);
  };
  return ReadQwen(config, /*shared=*/true, attend, layout);
}

absl::Status ReadQwen3(const JsonReader& config, ModelLayout* layout) {
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"attention_bias"}, false));
  const uint64_t d_model = layout->model.d_model;
  const auto attend = [&](const GroupedAttention& attention, TensorList* list) {
    AddGroupedAttention(attention, d_model, bias, bias, list);
    list->Norm("self_attn.q_norm", attention.head_dim);
    list->Norm("self_attn.k_norm", attention.head_dim);
  };
  return ReadQwen(config, /*shared=*/false, attend, layout);
}

absl::Status ReadOlmoe(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  RETURN_IF_ERROR(ReadRouting(config, &moe.routing));
  RETURN_IF_ERROR(ReadSilu(config));
  RETURN_IF_ERROR(ReadExpert(config, "intermediate_size", *layout, &moe.expert));
  ASSIGN_OR_RETURN(const Pattern sparse, EveryLayer(config));
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"attention_bias"}, false));
  const auto tensors = [&](uint32_t, bool, TensorList* list) {
    AddLayerNorms(d_model, list);
    AddGroupedAttention(attention, d_model, bias, bias, list);
    list->Norm("self_attn.q_norm", attention.q_width());
    list->Norm("self_attn.k_norm", attention.kv_width());
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({}, layout);
  return absl::OkStatus();
}

nlohmann::ordered_json SyntheticQwen3(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticDecoder(options);
  config["intermediate_size"] = SyntheticDenseWidth(options);
  config["moe_intermediate_size"] = options.intermediate_size;
  config["num_experts"] = options.num_experts;
  config["num_experts_per_tok"] = SyntheticTopK(options);
  config["norm_topk_prob"] = true;
  config["decoder_sparse_step"] = options.moe_every;
  config["mlp_only_layers"] = SyntheticDenseLayers(options);
  config["sliding_window"] = nullptr;
  return config;
}

nlohmann::ordered_json SyntheticQwen2(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticQwen3(options);
  // Its heads share d_model among them.
  config["head_dim"] = options.d_model / config["num_attention_heads"].get<uint32_t>();
  config["qkv_bias"] = true;
  config["norm_topk_prob"] = false;
  config["shared_expert_intermediate_size"] =
      SyntheticSharedExperts(options) * options.intermediate_size;
  config.erase("sliding_window");
  return config;
}

nlohmann::ordered_json SyntheticOlmoe(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticDecoder(options);
  config["head_dim"] = options.d_model / config["num_attention_heads"].get<uint32_t>();
  config["intermediate_size"] = options.intermediate_size;
  config["num_experts"] = options.num_experts;
  config["num_experts_per_tok"] = SyntheticTopK(options);
  config["norm_topk_prob"] = false;
  config["clip_qkv"] = nullptr;
  return config;
}

}  // namespace

const Family& Qwen2MoeFamily() {
  static constexpr absl::string_view kTypes[] = {"qwen2_moe"};
  static constexpr absl::string_view kArchitectures[] = {"Qwen2MoeForCausalLM"};
  static const Family kFamily = {.name = "qwen2_moe",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kStoragesWithShared,
                                 .synthetic_options = kTopKDenseAndShared,
                                 .read = &ReadQwen2,
                                 .synthetic_config = &SyntheticQwen2};
  return kFamily;
}

const Family& Qwen3MoeFamily() {
  static constexpr absl::string_view kTypes[] = {"qwen3_moe"};
  static constexpr absl::string_view kArchitectures[] = {"Qwen3MoeForCausalLM"};
  static const Family kFamily = {.name = "qwen3_moe",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kStorages,
                                 .fp8 = true,
                                 .synthetic_options = kTopKAndDense,
                                 .read = &ReadQwen3,
                                 .synthetic_config = &SyntheticQwen3};
  return kFamily;
}

const Family& OlmoeFamily() {
  static constexpr absl::string_view kTypes[] = {"olmoe"};
  static constexpr absl::string_view kArchitectures[] = {"OlmoeForCausalLM"};
  static const Family kFamily = {.name = "olmoe",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kStorages,
                                 .synthetic_options = kTopK,
                                 .read = &ReadOlmoe,
                                 .synthetic_config = &SyntheticOlmoe};
  return kFamily;
}

}  // namespace expertmesh::checkpoint
