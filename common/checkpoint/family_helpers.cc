#include "common/checkpoint/family_helpers.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/json_text.h"

namespace expertmesh {
namespace {

constexpr uint32_t kMaxExperts = 65536;

std::string KeyValue(absl::string_view key, uint64_t value) {
  return absl::StrCat(key, " = ", value);
}

}  // namespace

absl::Status ReadExpertCounts(const ConfigReader& config, RoutingOptions* routing) {
  const auto experts = {absl::string_view("num_local_experts"), absl::string_view("num_experts"),
                        absl::string_view("n_routed_experts")};
  const auto top_k = {absl::string_view("num_experts_per_tok"),
                      absl::string_view("experts_per_token"), absl::string_view("moe_top_k")};
  ASSIGN_OR_RETURN(routing->num_experts, config.Positive(experts, kMaxExperts));
  ASSIGN_OR_RETURN(routing->top_k, config.Positive(top_k, kMaxExperts));
  if (routing->top_k > routing->num_experts) {
    return config.Error(absl::StrCat(KeyValue(config.NameOf(top_k), routing->top_k),
                                     " must not exceed ",
                                     KeyValue(config.NameOf(experts), routing->num_experts)));
  }
  return absl::OkStatus();
}

absl::Status ReadGroupLimit(const ConfigReader& config, RoutingOptions* routing) {
  ASSIGN_OR_RETURN(routing->n_group, config.PositiveOr({"n_group"}, 1, kMaxExperts));
  ASSIGN_OR_RETURN(routing->topk_group, config.PositiveOr({"topk_group"}, 1, kMaxExperts));
  const std::string groups = KeyValue("n_group", routing->n_group);
  const std::string kept = KeyValue("topk_group", routing->topk_group);
  if (routing->num_experts % routing->n_group != 0) {
    return config.Error(
        absl::StrCat(groups, " must divide the number of experts, ", routing->num_experts));
  }
  if (routing->topk_group > routing->n_group) {
    return config.Error(absl::StrCat(kept, " must not exceed ", groups));
  }
  const uint64_t group_size = routing->num_experts / routing->n_group;
  if (routing->n_group > 1 && routing->group_score == GroupScore::kTopTwoSum && group_size < 2) {
    return config.Error(absl::StrCat(groups, " leaves ", group_size,
                                     " experts in a group; ranking groups takes two"));
  }
  if (group_size * routing->topk_group < routing->top_k) {
    return config.Error(absl::StrCat(
        groups, " and ", kept, " leave ", group_size * routing->topk_group,
        " experts to choose from, fewer than the ", routing->top_k, " of num_experts_per_tok"));
  }
  return absl::OkStatus();
}

absl::Status ReadActivation(const ConfigReader& config) {
  ASSIGN_OR_RETURN(const std::string name, config.StringOr({"hidden_act"}, "silu"));
  if (name != "silu" && name != "swish") {
    return config.Error(absl::StrCat("hidden_act = ", Quoted(name), " must be silu"));
  }
  return absl::OkStatus();
}

void AddEveryLayer(absl::string_view suffix, std::vector<uint64_t> shape, TensorKind kind,
                   ModelLayout* layout) {
  layout->every_layer.push_back(
      {absl::StrCat("model.layers.{layer}.", suffix), std::move(shape), kind, false});
}

void AddLayerNorms(ModelLayout* layout) {
  for (const absl::string_view name :
       {"input_layernorm.weight", "post_attention_layernorm.weight"}) {
    AddEveryLayer(name, {layout->model.d_model}, TensorKind::kNorm, layout);
  }
}

absl::StatusOr<GroupedAttention> ReadGroupedAttention(const ConfigReader& config,
                                                      uint32_t d_model) {
  GroupedAttention attention;
  ASSIGN_OR_RETURN(attention.heads, config.Positive({"num_attention_heads"}, kMaxWidth));
  ASSIGN_OR_RETURN(attention.kv_heads,
                   config.PositiveOr({"num_key_value_heads"}, attention.heads, kMaxWidth));
  if (attention.heads % attention.kv_heads != 0) {
    return config.Error(
        absl::StrCat("num_attention_heads = ", attention.heads,
                     " must be a multiple of num_key_value_heads = ", attention.kv_heads));
  }
  if (!config.Has("head_dim") && d_model % attention.heads != 0) {
    return config.Error(absl::StrCat(
        "hidden_size = ", d_model, " must be a multiple of num_attention_heads = ", attention.heads,
        " unless head_dim is given"));
  }
  ASSIGN_OR_RETURN(
      attention.head_dim,
      config.PositiveOr({"head_dim"}, std::max(1u, d_model / attention.heads), kMaxWidth));
  return attention;
}

void AddLinear(absl::string_view suffix, uint64_t out, uint64_t in, bool bias,
               ModelLayout* layout) {
  AddEveryLayer(absl::StrCat(suffix, ".weight"), {out, in}, TensorKind::kLinear, layout);
  if (bias) {
    AddEveryLayer(absl::StrCat(suffix, ".bias"), {out}, TensorKind::kBias, layout);
  }
}

void AddGroupedAttention(const GroupedAttention& attention, bool bias, ModelLayout* layout) {
  const uint64_t d_model = layout->model.d_model;
  const uint64_t q = uint64_t{attention.heads} * attention.head_dim;
  const uint64_t kv = uint64_t{attention.kv_heads} * attention.head_dim;
  AddLinear("self_attn.q_proj", q, d_model, bias, layout);
  AddLinear("self_attn.k_proj", kv, d_model, bias, layout);
  AddLinear("self_attn.v_proj", kv, d_model, bias, layout);
  AddLinear("self_attn.o_proj", d_model, q, bias, layout);
}

GroupedAttention SyntheticAttention(const SyntheticOptions& options) {
  const uint32_t head_dim = options.d_model < 256 ? 16 : 64;
  const uint32_t heads = std::max(1u, options.d_model / head_dim);
  return {heads, heads % 4 == 0 ? heads / 4 : heads, head_dim};
}

uint32_t SyntheticDenseWidth(const SyntheticOptions& options) {
  return options.dense_intermediate_size > 0 ? options.dense_intermediate_size
                                             : 4 * options.intermediate_size;
}

absl::Status RefuseOption(bool set, absl::string_view option, absl::string_view family) {
  if (!set) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(option, " has no place in family ", family));
}

nlohmann::ordered_json SyntheticCommon(const SyntheticOptions& options,
                                       absl::string_view model_type,
                                       absl::string_view architecture) {
  const absl::string_view dtype = options.dtype == DType::kBF16  ? "bfloat16"
                                  : options.dtype == DType::kF16 ? "float16"
                                                                 : "float32";
  return {
      {"architectures", {std::string(architecture)}},
      {"model_type", std::string(model_type)},
      {"torch_dtype", std::string(dtype)},
      {"hidden_size", options.d_model},
      {"num_hidden_layers", options.num_layers},
      {"vocab_size", options.vocab_size},
      {"hidden_act", "silu"},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 10000.0},
      {"max_position_embeddings", 4096},
      {"attention_dropout", 0.0},
      {"bos_token_id", 0},
      {"eos_token_id", 0},
      {"tie_word_embeddings", false},
      {"use_cache", true},
  };
}

}  // namespace expertmesh
