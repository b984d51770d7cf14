// NLLB-MoE: an encoder and a decoder, the two best experts, renormalised over those that had room.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"
#include "common/json/json_text.h"

namespace expertmesh::checkpoint {
namespace {

constexpr Stack kStacks[] = {{.layer = "{model}encoder.layers.{layer}."},
                             {.layer = "{model}decoder.layers.{layer}."}};
constexpr Storage kStorages[] = {
    {.gate = "ffn.router.classifier.weight",
     .logit_bias = "ffn.router.classifier.bias",
     .experts = {.up = {.name = "ffn.experts.expert_{expert}.fc1.weight"},
                 .down = {.name = "ffn.experts.expert_{expert}.fc2.weight"},
                 .up_bias = {.name = "ffn.experts.expert_{expert}.fc1.bias"},
                 .down_bias = {.name = "ffn.experts.expert_{expert}.fc2.bias"}}},
};
constexpr SyntheticOption kOptions[] = {SyntheticOption::kMoeEvery};

absl::Status ReadSecondExpert(const JsonReader& config, RoutingOptions* routing) {
  ASSIGN_OR_RETURN(const std::string policy, config.StringOr({"second_expert_policy"}, "all"));
  if (policy == "sampling") {
    routing->second_expert = SecondExpert::kSampled;
  } else if (policy == "random") {
    routing->second_expert = SecondExpert::kRandom;
    routing->second_expert_threshold = 0.5f;
  } else if (policy != "all") {
    return config.Error(absl::StrCat("second_expert_policy = ", Quoted(policy),
                                     " must be all, sampling or random"));
  }
  return absl::OkStatus();
}

// When not training, an expert takes a fraction of a batch's tokens. It is asked for each at most
// once, so that 1 is no limit.
absl::Status ReadCapacity(const JsonReader& config, RoutingOptions* routing) {
  ASSIGN_OR_RETURN(const float fraction,
                   config.FloatOr({"moe_eval_capacity_token_fraction"}, 1.0f));
  ASSIGN_OR_RETURN(const bool prioritised, config.BoolOr({"batch_prioritized_routing"}, false));
  routing->capacity.drop = prioritised ? DropPolicy::kBatchPrioritised : DropPolicy::kPosition;
  if (fraction > 0.0f && fraction < 1.0f) {
    routing->capacity.factor =
        fraction * static_cast<float>(routing->num_experts) / static_cast<float>(routing->top_k);
  } else if (fraction <= 0.0f) {
    ASSIGN_OR_RETURN(routing->capacity.tokens, config.Positive({"expert_capacity"}));
  }
  return absl::OkStatus();
}

absl::Status ReadRouting(const JsonReader& config, MoeLayerDescription* moe) {
  RoutingOptions& routing = moe->routing;
  RETURN_IF_ERROR(ReadNumExperts(config, 2, &routing));
  RETURN_IF_ERROR(Expect(config, "router_dtype", "float32"));
  routing.logit_dtype = LogitDtype::kF32;
  routing.score_dtype = ScoreDtype::kModel;
  routing.weight_dtype = WeightDtype::kModel;
  ASSIGN_OR_RETURN(routing.logit_bias, config.BoolOr({"router_bias"}, false));
  ASSIGN_OR_RETURN(const bool before,
                   config.BoolOr({"normalize_router_prob_before_dropping"}, false));
  routing.renormalise = Renormalise::kDtypeClampedSum;
  routing.renormalise_after_drop = !before;
  RETURN_IF_ERROR(ReadSecondExpert(config, &routing));
  RETURN_IF_ERROR(ReadCapacity(config, &routing));
  // Training drops whole outputs of experts; otherwise they are scaled to the same mean.
  ASSIGN_OR_RETURN(const float dropout, config.FloatOr({"moe_token_dropout"}, 0.2f));
  if (dropout < 0.0f || dropout >= 1.0f) {
    return config.Error(
        absl::StrCat("moe_token_dropout = ", dropout, " must be from 0 to less than 1"));
  }
  routing.scale = 1.0f - dropout;
  return absl::OkStatus();
}

void AddAttention(absl::string_view name, absl::string_view norm, uint64_t d_model,
                  TensorList* list) {
  for (const absl::string_view projection : {".q_proj", ".k_proj", ".v_proj", ".out_proj"}) {
    list->Linear(absl::StrCat(name, projection), d_model, d_model, /*bias=*/true);
  }
  list->Norm(norm, d_model, /*bias=*/true);
}

absl::Status ReadStack(const JsonReader& config, uint32_t stack, MoeLayerDescription moe,
                       ModelLayout* layout) {
  const std::string kind = stack == 0 ? "encoder" : "decoder";
  const std::string step_key = absl::StrCat(kind, "_sparse_step");
  ASSIGN_OR_RETURN(const uint32_t layers,
                   config.Positive({absl::StrCat(kind, "_layers")}, kMaxLayers));
  ASSIGN_OR_RETURN(const uint32_t step, config.WholeOr({step_key}, 4));
  RETURN_IF_ERROR(ReadExpert(config, absl::StrCat(kind, "_ffn_dim"), *layout, &moe.expert));
  Pattern sparse(layers, false);
  for (uint32_t layer = 0; step > 0 && layer < layers; ++layer) {
    sparse[layer] = (layer + 1) % step == 0;
  }
  const uint64_t d_model = layout->model.d_model;
  const auto tensors = [&](uint32_t, bool has_experts, TensorList* list) {
    AddAttention("self_attn", "self_attn_layer_norm", d_model, list);
    if (stack == 1) {
      AddAttention("cross_attention", "cross_attention_layer_norm", d_model, list);
    }
    list->Norm("ff_layer_norm", d_model, /*bias=*/true);
    if (!has_experts) {
      list->Linear("ffn.fc1", moe.expert.intermediate_size, d_model, /*bias=*/true);
      list->Linear("ffn.fc2", d_model, moe.expert.intermediate_size, /*bias=*/true);
    }
  };
  AddStack(stack, moe, sparse, tensors, layout);
  return absl::OkStatus();
}

absl::Status Read(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  RETURN_IF_ERROR(ReadRouting(config, &moe));
  RETURN_IF_ERROR(Expect(config, "activation_function", "relu"));
  moe.expert.activation = Activation::kRelu;
  moe.expert.gated = false;
  moe.expert.bias = true;
  RETURN_IF_ERROR(ReadStack(config, 0, moe, layout));
  RETURN_IF_ERROR(ReadStack(config, 1, moe, layout));
  const uint64_t d_model = layout->model.d_model;
  TensorList ends(std::string(kModelPrefixes[0]), &layout->outer);
  ends.Add("shared.weight", {layout->vocab_size, d_model}, TensorKind::kEmbedding);
  ends.Norm("encoder.layer_norm", d_model, /*bias=*/true);
  ends.Norm("decoder.layer_norm", d_model, /*bias=*/true);
  if (!layout->tied_embeddings) {
    TensorList head("lm_head.", &layout->outer);
    head.Add("weight", {layout->vocab_size, d_model}, TensorKind::kPlainLinear, d_model);
  }
  return absl::OkStatus();
}

nlohmann::ordered_json Synthetic(const SyntheticOptions& options) {
  const GroupedAttention attention = SyntheticAttention(options);
  const uint32_t decoder = std::max(1u, options.num_layers / 2);
  return {{"d_model", options.d_model},
          {"encoder_layers", std::max(decoder, options.num_layers - decoder)},
          {"decoder_layers", decoder},
          {"encoder_ffn_dim", options.intermediate_size},
          {"decoder_ffn_dim", options.intermediate_size},
          {"encoder_attention_heads", attention.heads},
          {"decoder_attention_heads", attention.heads},
          {"encoder_sparse_step", options.moe_every},
          {"decoder_sparse_step", options.moe_every},
          {"num_experts", options.num_experts},
          {"expert_capacity", 64},
          {"vocab_size", options.vocab_size},
          {"activation_function", "relu"},
          {"router_dtype", "float32"},
          {"router_bias", false},
          {"second_expert_policy", "all"},
          {"moe_eval_capacity_token_fraction", 1.0},
          {"moe_token_dropout", 0.2},
          {"max_position_embeddings", 1024},
          {"is_encoder_decoder", true},
          {"tie_word_embeddings", true},
          {"bos_token_id", 0},
          {"pad_token_id", 1},
          {"eos_token_id", 2},
          {"decoder_start_token_id", 2}};
}

}  // namespace

const Family& NllbMoeFamily() {
  static constexpr absl::string_view kTypes[] = {"nllb-moe"};
  static constexpr absl::string_view kArchitectures[] = {"NllbMoeForConditionalGeneration"};
  static const Family kFamily = {.name = "nllb_moe",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kStacks,
                                 .storages = kStorages,
                                 .tied_by_default = true,
                                 .why_absent = {.logit_bias = "router_bias is false or absent"},
                                 .synthetic_options = kOptions,
                                 .read = &Read,
                                 .synthetic_config = &Synthetic};
  return kFamily;
}

}  // namespace expertmesh::checkpoint
