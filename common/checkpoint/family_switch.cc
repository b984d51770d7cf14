// Switch Transformer: an encoder and a decoder, one expert for each token, capacity for each
// sequence.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"

namespace expertmesh::checkpoint {
namespace {

constexpr Stack kStacks[] = {{.layer = "encoder.block.{layer}.", .moe = "layer.1.mlp."},
                             {.layer = "decoder.block.{layer}.", .moe = "layer.2.mlp."}};
constexpr Storage kStorages[] = {
    {.gate = "router.classifier.weight",
     .logit_bias = "router.classifier.bias",
     .experts = {.up = {.name = "experts.expert_{expert}.wi.weight"},
                 .down = {.name = "experts.expert_{expert}.wo.weight"}}},
};
constexpr SyntheticOption kOptions[] = {SyntheticOption::kMoeEvery};

absl::Status ReadRouting(const JsonReader& config, RoutingOptions* routing) {
  RETURN_IF_ERROR(ReadNumExperts(config, 1, routing));
  // As the original, whatever the activations' dtype.
  RETURN_IF_ERROR(Expect(config, "router_dtype", "float32"));
  routing->logit_dtype = LogitDtype::kF32;
  routing->score_dtype = ScoreDtype::kModel;
  routing->weight_dtype = WeightDtype::kModel;
  ASSIGN_OR_RETURN(routing->logit_bias, config.BoolOr({"router_bias"}, false));
  ASSIGN_OR_RETURN(routing->capacity.tokens, config.PositiveOr({"expert_capacity"}, 64));
  return absl::OkStatus();
}

// Which of `layers` layers have experts, when `wanted` of them shall: the second of every `step`
// layers, where step = layers / wanted. All have experts when `step` is 1.
Pattern EveryStep(uint32_t layers, uint32_t wanted) {
  const uint32_t step = wanted > 0 ? layers / wanted : layers;
  Pattern sparse(layers, false);
  for (uint32_t layer = 0; step > 0 && layer < layers; ++layer) {
    sparse[layer] = step == 1 || layer % step == 1;
  }
  return sparse;
}

struct Attention {
  uint64_t heads = 0;
  uint64_t width = 0;
  uint64_t buckets = 0;

  void Add(absl::string_view name, uint64_t d_model, TensorList* list) const {
    for (const absl::string_view projection : {".q", ".k", ".v"}) {
      list->Linear(absl::StrCat(name, projection), width, d_model);
    }
    list->Linear(absl::StrCat(name, ".o"), d_model, width);
  }
  // Only the first block of a stack has it.
  void AddPositions(TensorList* list) const {
    list->Add("layer.0.SelfAttention.relative_attention_bias.weight", {buckets, heads},
              TensorKind::kEmbedding);
  }
};

absl::StatusOr<Attention> ReadAttention(const JsonReader& config) {
  Attention attention;
  ASSIGN_OR_RETURN(attention.heads, config.Positive({"num_heads"}, kMaxWidth));
  ASSIGN_OR_RETURN(const uint64_t head_dim, config.PositiveOr({"d_kv"}, 64, kMaxWidth));
  ASSIGN_OR_RETURN(attention.buckets,
                   config.PositiveOr({"relative_attention_num_buckets"}, 32, kMaxWidth));
  attention.width = attention.heads * head_dim;
  return attention;
}

// One stack: 0 the encoder, 1 the decoder.
void AddBlocks(uint32_t stack, const MoeLayerDescription& moe, const Pattern& sparse,
               const Attention& attention, ModelLayout* layout) {
  const uint64_t d_model = moe.expert.d_model;
  const auto tensors = [&](uint32_t index, bool has_experts, TensorList* list) {
    attention.Add("layer.0.SelfAttention", d_model, list);
    if (index == 0) {
      attention.AddPositions(list);
    }
    list->Norm("layer.0.layer_norm", d_model);
    if (stack == 1) {
      attention.Add("layer.1.EncDecAttention", d_model, list);
      list->Norm("layer.1.layer_norm", d_model);
    }
    const std::string last = absl::StrCat("layer.", stack + 1);
    list->Norm(absl::StrCat(last, ".layer_norm"), d_model);
    if (!has_experts) {
      list->Linear(absl::StrCat(last, ".mlp.wi"), moe.expert.intermediate_size, d_model);
      list->Linear(absl::StrCat(last, ".mlp.wo"), d_model, moe.expert.intermediate_size);
    }
  };
  AddStack(stack, moe, sparse, tensors, layout);
}

absl::Status Read(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  RETURN_IF_ERROR(ReadRouting(config, &moe.routing));
  RETURN_IF_ERROR(Expect(config, "dense_act_fn", "relu"));
  RETURN_IF_ERROR(ReadExpert(config, "d_ff", *layout, &moe.expert));
  moe.expert.activation = Activation::kRelu;
  moe.expert.gated = false;
  ASSIGN_OR_RETURN(const uint32_t encoder, config.Positive({"num_layers"}, kMaxLayers));
  ASSIGN_OR_RETURN(const uint32_t decoder,
                   config.PositiveOr({"num_decoder_layers"}, encoder, kMaxLayers));
  ASSIGN_OR_RETURN(const uint32_t sparse_encoder,
                   config.WholeOr({"num_sparse_encoder_layers"}, 3, encoder));
  ASSIGN_OR_RETURN(const uint32_t sparse_decoder,
                   config.WholeOr({"num_sparse_decoder_layers"}, 3, decoder));
  ASSIGN_OR_RETURN(const Attention attention, ReadAttention(config));
  AddBlocks(0, moe, EveryStep(encoder, sparse_encoder), attention, layout);
  AddBlocks(1, moe, EveryStep(decoder, sparse_decoder), attention, layout);
  const uint64_t d_model = layout->model.d_model;
  TensorList ends("", &layout->outer);
  ends.Add("shared.weight", {layout->vocab_size, d_model}, TensorKind::kEmbedding);
  ends.Norm("encoder.final_layer_norm", d_model);
  ends.Norm("decoder.final_layer_norm", d_model);
  if (!layout->tied_embeddings) {
    ends.Add("lm_head.weight", {layout->vocab_size, d_model}, TensorKind::kPlainLinear, d_model);
  }
  return absl::OkStatus();
}

nlohmann::ordered_json Synthetic(const SyntheticOptions& options) {
  const GroupedAttention attention = SyntheticAttention(options);
  const uint32_t decoder = std::max(1u, options.num_layers / 2);
  const uint32_t encoder = std::max(decoder, options.num_layers - decoder);
  return {{"d_model", options.d_model},
          {"d_kv", attention.head_dim},
          {"d_ff", options.intermediate_size},
          {"num_layers", encoder},
          {"num_decoder_layers", decoder},
          {"num_sparse_encoder_layers", encoder / std::min(encoder, options.moe_every)},
          {"num_sparse_decoder_layers", decoder / std::min(decoder, options.moe_every)},
          {"num_heads", attention.heads},
          {"num_experts", options.num_experts},
          {"expert_capacity", 64},
          {"vocab_size", options.vocab_size},
          {"router_dtype", "float32"},
          {"router_bias", false},
          {"dense_act_fn", "relu"},
          {"is_encoder_decoder", true},
          {"tie_word_embeddings", true},
          {"pad_token_id", 0},
          {"eos_token_id", 1},
          {"decoder_start_token_id", 0}};
}

}  // namespace

const Family& SwitchFamily() {
  static constexpr absl::string_view kTypes[] = {"switch_transformers"};
  static constexpr absl::string_view kArchitectures[] = {
      "SwitchTransformersForConditionalGeneration"};
  static const Family kFamily = {.name = "switch_transformers",
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
