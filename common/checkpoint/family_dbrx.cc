// DBRX: experts stacked in the rows of three matrices, down with inputs first.
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"

namespace expertmesh::checkpoint {
namespace {

constexpr Stack kStacks[] = {{.layer = "transformer.blocks.{layer}."}};
constexpr Storage kStorages[] = {
    {.gate = "ffn.router.layer.weight",
     .experts = {.gate = {.name = "ffn.experts.mlp.w1", .stacking = Stacking::kRows},
                 .up = {.name = "ffn.experts.mlp.v1", .stacking = Stacking::kRows},
                 .down = {.name = "ffn.experts.mlp.w2",
                          .stacking = Stacking::kRows,
                          .transposed = true}}},
};
constexpr SyntheticOption kOptions[] = {SyntheticOption::kTopK};

absl::Status ReadFfn(const JsonReader& ffn, const ModelLayout& layout, MoeLayerDescription* moe) {
  moe->routing = SoftmaxRouting();
  RETURN_IF_ERROR(ReadExpertCounts(ffn, &moe->routing));
  if (!ffn.IsNull("moe_normalize_expert_weights")) {
    moe->routing.renormalise = Renormalise::kLp;
    ASSIGN_OR_RETURN(moe->routing.renormalise_p,
                     ffn.FloatOr({"moe_normalize_expert_weights"}, 1.0f));
    if (!(moe->routing.renormalise_p > 0.0f)) {
      return ffn.Error(absl::StrCat("moe_normalize_expert_weights = ", moe->routing.renormalise_p,
                                    " must be a number above 0, or null"));
    }
  }
  ASSIGN_OR_RETURN(const JsonReader activation, ffn.ObjectOrEmpty("ffn_act_fn"));
  RETURN_IF_ERROR(ReadSilu(activation, "name"));
  return ReadExpert(ffn, "ffn_hidden_size", layout, &moe->expert);
}

absl::Status Read(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  ASSIGN_OR_RETURN(const JsonReader ffn, config.ObjectOrEmpty("ffn_config"));
  RETURN_IF_ERROR(ReadFfn(ffn, *layout, &moe));
  ASSIGN_OR_RETURN(const uint32_t layers, config.Positive({"n_layers"}, kMaxLayers));
  ASSIGN_OR_RETURN(const uint32_t heads, config.Positive({"n_heads"}, kMaxWidth));
  ASSIGN_OR_RETURN(const JsonReader attention, config.ObjectOrEmpty("attn_config"));
  ASSIGN_OR_RETURN(const uint32_t kv_heads, attention.PositiveOr({"kv_n_heads"}, 1, kMaxWidth));
  const uint64_t d_model = layout->model.d_model;
  if (d_model % heads != 0) {
    return config.Error(
        absl::StrCat("d_model = ", d_model, " must be a multiple of n_heads = ", heads));
  }
  const uint64_t qkv = d_model + 2 * kv_heads * (d_model / heads);
  const auto tensors = [&](uint32_t, bool, TensorList* list) {
    list->Linear("norm_attn_norm.attn.Wqkv", qkv, d_model);
    list->Linear("norm_attn_norm.attn.out_proj", d_model, d_model);
    list->Norm("norm_attn_norm.norm_1", d_model);
    list->Norm("norm_attn_norm.norm_2", d_model);
  };
  AddStack(0, moe, Pattern(layers, true), tensors, layout);
  TensorList ends("", &layout->outer);
  ends.Add("transformer.wte.weight", {layout->vocab_size, d_model}, TensorKind::kEmbedding);
  ends.Norm("transformer.norm_f", d_model);
  if (!layout->tied_embeddings) {
    ends.Add("lm_head.weight", {layout->vocab_size, d_model}, TensorKind::kPlainLinear, d_model);
  }
  return absl::OkStatus();
}

nlohmann::ordered_json Synthetic(const SyntheticOptions& options) {
  const GroupedAttention attention = SyntheticAttention(options);
  return {{"d_model", options.d_model},
          {"n_layers", options.num_layers},
          {"n_heads", attention.heads},
          {"vocab_size", options.vocab_size},
          {"max_seq_len", 4096},
          {"tie_word_embeddings", false},
          {"use_cache", true},
          {"attn_config",
           {{"clip_qkv", 8}, {"kv_n_heads", attention.kv_heads}, {"rope_theta", 10000.0}}},
          {"ffn_config",
           {{"ffn_act_fn", {{"name", "silu"}}},
            {"ffn_hidden_size", options.intermediate_size},
            {"moe_num_experts", options.num_experts},
            {"moe_top_k", SyntheticTopK(options)},
            {"moe_normalize_expert_weights", 1.0}}}};
}

}  // namespace

const Family& DbrxFamily() {
  static constexpr absl::string_view kTypes[] = {"dbrx"};
  static constexpr absl::string_view kArchitectures[] = {"DbrxForCausalLM"};
  static const Family kFamily = {.name = "dbrx",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kStacks,
                                 .storages = kStorages,
                                 .synthetic_options = kOptions,
                                 .read = &Read,
                                 .synthetic_config = &Synthetic};
  return kFamily;
}

}  // namespace expertmesh::checkpoint
