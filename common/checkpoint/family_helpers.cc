#include "common/checkpoint/family_helpers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/json/json_text.h"

namespace expertmesh::checkpoint {
namespace {

constexpr auto kExpertKeys = {
    absl::string_view("num_local_experts"), absl::string_view("num_experts"),
    absl::string_view("n_routed_experts"), absl::string_view("moe_num_experts")};
constexpr auto kTopKKeys = {absl::string_view("num_experts_per_tok"),
                            absl::string_view("experts_per_token"), absl::string_view("moe_top_k"),
                            absl::string_view("moe_k")};

std::string KeyValue(absl::string_view key, uint64_t value) {
  return absl::StrCat(key, " = ", value);
}

absl::Status CheckTopK(const JsonReader& config, const RoutingOptions& routing) {
  if (routing.top_k > routing.num_experts) {
    return config.Error(absl::StrCat(KeyValue(config.NameOf(kTopKKeys), routing.top_k),
                                     " must not exceed ",
                                     KeyValue(config.NameOf(kExpertKeys), routing.num_experts)));
  }
  return absl::OkStatus();
}

}  // namespace

RoutingOptions SoftmaxRouting() {
  RoutingOptions routing;
  routing.logit_dtype = LogitDtype::kModel;
  routing.score = ScoreFunction::kSoftmax;
  routing.weight_dtype = WeightDtype::kModel;
  return routing;
}

absl::Status ReadExpertCounts(const JsonReader& config, RoutingOptions* routing) {
  ASSIGN_OR_RETURN(routing->num_experts, config.Positive(kExpertKeys, kMaxExperts));
  ASSIGN_OR_RETURN(routing->top_k, config.Positive(kTopKKeys, kMaxExperts));
  return CheckTopK(config, *routing);
}

absl::Status ReadNumExperts(const JsonReader& config, uint32_t top_k, RoutingOptions* routing) {
  ASSIGN_OR_RETURN(routing->num_experts, config.Positive(kExpertKeys, kMaxExperts));
  routing->top_k = top_k;
  if (routing->num_experts < top_k) {
    return config.Error(absl::StrCat(KeyValue(config.NameOf(kExpertKeys), routing->num_experts),
                                     " must be at least the ", top_k,
                                     " that this family takes for each token"));
  }
  return absl::OkStatus();
}

absl::Status ReadGroupLimit(const JsonReader& config, RoutingOptions* routing) {
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

absl::Status ReadRenormalise(const JsonReader& config, bool fallback, float epsilon,
                             RoutingOptions* routing) {
  ASSIGN_OR_RETURN(const bool renormalise, config.BoolOr({"norm_topk_prob"}, fallback));
  routing->renormalise = renormalise ? Renormalise::kSum : Renormalise::kNone;
  routing->renormalise_epsilon = renormalise ? epsilon : 0.0f;
  return absl::OkStatus();
}

absl::Status Expect(const JsonReader& config, absl::string_view key, absl::string_view only) {
  ASSIGN_OR_RETURN(const std::string value, config.StringOr({key}, only));
  if (value != only) {
    return config.Error(
        absl::StrCat(key, " = ", Quoted(value), " must be ", only, " for this family"));
  }
  return absl::OkStatus();
}

absl::Status ReadSilu(const JsonReader& config, absl::string_view key) {
  // Two names of one function.
  return config.Holds(key, "swish") ? absl::OkStatus() : Expect(config, key, "silu");
}

absl::Status ReadExpert(const JsonReader& config, absl::string_view width_key,
                        const ModelLayout& layout, ExpertOptions* expert) {
  expert->d_model = layout.model.d_model;
  ASSIGN_OR_RETURN(expert->intermediate_size, config.Positive({width_key}, kMaxWidth));
  return absl::OkStatus();
}

absl::Status ReadSharedExperts(const JsonReader& config, absl::string_view count_key,
                               MoeLayerDescription* layer) {
  ASSIGN_OR_RETURN(const uint32_t shared, config.WholeOr({count_key}, 0));
  const uint64_t width = uint64_t{shared} * layer->expert.intermediate_size;
  if (width > kMaxWidth) {
    return config.Error(
        absl::StrCat(KeyValue(count_key, shared), " times ",
                     KeyValue("moe_intermediate_size", layer->expert.intermediate_size),
                     " must not exceed ", kMaxWidth));
  }
  layer->shared_intermediate_size = static_cast<uint32_t>(width);
  return absl::OkStatus();
}

absl::StatusOr<Pattern> EveryLayer(const JsonReader& config) {
  ASSIGN_OR_RETURN(const uint32_t layers, config.Positive({"num_hidden_layers"}, kMaxLayers));
  return Pattern(layers, true);
}

absl::StatusOr<Pattern> AfterDenseLayers(const JsonReader& config, uint32_t dense_by_default) {
  ASSIGN_OR_RETURN(Pattern sparse, EveryLayer(config));
  ASSIGN_OR_RETURN(const uint32_t dense,
                   config.WholeOr({"first_k_dense_replace"}, dense_by_default));
  ASSIGN_OR_RETURN(const uint32_t every, config.PositiveOr({"moe_layer_freq"}, 1));
  for (uint32_t layer = 0; layer < sparse.size(); ++layer) {
    sparse[layer] = layer >= dense && layer % every == 0;
  }
  return sparse;
}

absl::StatusOr<Pattern> EverySparseStep(const JsonReader& config) {
  ASSIGN_OR_RETURN(Pattern sparse, EveryLayer(config));
  ASSIGN_OR_RETURN(const uint32_t step, config.PositiveOr({"decoder_sparse_step"}, 1));
  ASSIGN_OR_RETURN(const std::vector<uint32_t> dense, config.WholeNumbers("mlp_only_layers"));
  for (uint32_t layer = 0; layer < sparse.size(); ++layer) {
    sparse[layer] = (layer + 1) % step == 0;
  }
  for (const uint32_t layer : dense) {
    if (layer >= sparse.size()) {
      return config.Error(absl::StrCat("mlp_only_layers holds ", layer,
                                       ", but num_hidden_layers = ", sparse.size()));
    }
    sparse[layer] = false;
  }
  return sparse;
}

void TensorList::Add(absl::string_view name, std::vector<uint64_t> shape, TensorKind kind,
                     uint64_t inputs) {
  target_->push_back({absl::StrCat(prefix_, name), std::move(shape), kind, inputs});
}

void TensorList::Linear(absl::string_view name, uint64_t outputs, uint64_t inputs, bool bias) {
  Add(absl::StrCat(name, ".weight"), {outputs, inputs}, TensorKind::kLinear, inputs);
  if (bias) {
    Add(absl::StrCat(name, ".bias"), {outputs}, TensorKind::kBias);
  }
}

void TensorList::Norm(absl::string_view name, uint64_t width, bool bias) {
  Add(absl::StrCat(name, ".weight"), {width}, TensorKind::kNorm);
  if (bias) {
    Add(absl::StrCat(name, ".bias"), {width}, TensorKind::kBias);
  }
}

void TensorList::Glu(absl::string_view name, uint64_t d_model, uint64_t width, bool bias) {
  Linear(absl::StrCat(name, ".gate_proj"), width, d_model, bias);
  Linear(absl::StrCat(name, ".up_proj"), width, d_model, bias);
  Linear(absl::StrCat(name, ".down_proj"), d_model, width, bias);
}

void AddStack(uint32_t stack, const MoeLayerDescription& moe, const Pattern& sparse,
              LayerTensors tensors, ModelLayout* layout) {
  for (uint32_t index = 0; index < sparse.size(); ++index) {
    LayerLayout layer;
    layer.stack = stack;
    layer.index = index;
    TensorList list(LayerPrefix(*layout, layer), &layer.tensors);
    tensors(index, sparse[index], &list);
    if (sparse[index]) {
      layout->model.layers.push_back(moe);
      layout->model.layers.back().layer = static_cast<uint32_t>(layout->layers.size());
    }
    layout->layers.push_back(std::move(layer));
  }
  layout->model.num_layers = static_cast<uint32_t>(layout->layers.size());
}

void AddDecoderEnds(const DecoderEnds& ends, ModelLayout* layout) {
  const uint64_t d_model = layout->model.d_model;
  const uint64_t vocab = layout->vocab_size;
  TensorList tensors(std::string(kModelPrefixes[0]), &layout->outer);
  tensors.Add("embed_tokens.weight", {vocab, d_model}, TensorKind::kEmbedding);
  tensors.Norm(ends.norm, d_model, ends.norm_bias);
  if (!layout->tied_embeddings) {
    TensorList head("lm_head.", &layout->outer);
    head.Add("weight", {vocab, d_model}, TensorKind::kPlainLinear, d_model);
    if (ends.head_bias) {
      head.Add("bias", {vocab}, TensorKind::kBias);
    }
  }
}

absl::StatusOr<uint32_t> ReadDenseWidth(const JsonReader& config, const Pattern& sparse,
                                        absl::string_view key) {
  if (std::find(sparse.begin(), sparse.end(), false) == sparse.end()) {
    return 0;
  }
  return config.Positive({key}, kMaxWidth);
}

absl::StatusOr<GroupedAttention> ReadGroupedAttention(const JsonReader& config, uint32_t d_model) {
  ASSIGN_OR_RETURN(const uint32_t heads, config.Positive({"num_attention_heads"}, kMaxWidth));
  ASSIGN_OR_RETURN(const uint32_t kv_heads,
                   config.PositiveOr({"num_key_value_heads"}, heads, kMaxWidth));
  if (heads % kv_heads != 0) {
    return config.Error(absl::StrCat(KeyValue("num_attention_heads", heads),
                                     " must be a multiple of ",
                                     KeyValue("num_key_value_heads", kv_heads)));
  }
  if (!config.Has("head_dim") && d_model % heads != 0) {
    return config.Error(absl::StrCat("hidden_size = ", d_model,
                                     " must be a multiple of num_attention_heads = ", heads,
                                     " unless head_dim is given"));
  }
  ASSIGN_OR_RETURN(const uint32_t head_dim,
                   config.PositiveOr({"head_dim"}, std::max(1u, d_model / heads), kMaxWidth));
  return GroupedAttention{heads, kv_heads, head_dim};
}

void AddGroupedAttention(const GroupedAttention& attention, uint64_t d_model, bool qkv_bias,
                         bool o_bias, TensorList* tensors, absl::string_view o_name) {
  tensors->Linear("self_attn.q_proj", attention.q_width(), d_model, qkv_bias);
  tensors->Linear("self_attn.k_proj", attention.kv_width(), d_model, qkv_bias);
  tensors->Linear("self_attn.v_proj", attention.kv_width(), d_model, qkv_bias);
  tensors->Linear(absl::StrCat("self_attn.", o_name), d_model, attention.q_width(), o_bias);
}

void AddLayerNorms(uint64_t d_model, TensorList* tensors, bool bias) {
  tensors->Norm("input_layernorm", d_model, bias);
  tensors->Norm("post_attention_layernorm", d_model, bias);
}

}  // namespace expertmesh::checkpoint
