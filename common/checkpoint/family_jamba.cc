// Jamba: attention and Mamba layers, some of either with experts; weights are not renormalised.
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"

namespace expertmesh::checkpoint {
namespace {

constexpr Storage kStorages[] = {
    {.gate = "feed_forward.router.weight",
     .experts = Separate("feed_forward.experts.{expert}.gate_proj.weight",
                         "feed_forward.experts.{expert}.up_proj.weight",
                         "feed_forward.experts.{expert}.down_proj.weight")},
    {.gate = "feed_forward.router.weight",
     .experts = Fused("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj")},
};
constexpr SyntheticOption kOptions[] = {SyntheticOption::kTopK, SyntheticOption::kMoeEvery};

// Layers whose index leaves `offset` when divided by `period`.
absl::StatusOr<Pattern> ReadPeriod(const JsonReader& config, absl::string_view kind,
                                   uint32_t period_by_default, uint32_t offset_by_default) {
  const std::string period_key = absl::StrCat(kind, "_layer_period");
  const std::string offset_key = absl::StrCat(kind, "_layer_offset");
  ASSIGN_OR_RETURN(Pattern pattern, EveryLayer(config));
  ASSIGN_OR_RETURN(const uint32_t period, config.PositiveOr({period_key}, period_by_default));
  ASSIGN_OR_RETURN(const uint32_t offset, config.WholeOr({offset_key}, offset_by_default));
  if (offset >= period) {
    return config.Error(
        absl::StrCat(offset_key, " = ", offset, " must be below ", period_key, " = ", period));
  }
  for (uint32_t layer = 0; layer < pattern.size(); ++layer) {
    pattern[layer] = layer % period == offset;
  }
  return pattern;
}

struct Mamba {
  uint64_t width = 0;
  uint64_t state = 0;
  uint64_t kernel = 0;
  uint64_t dt_rank = 0;
  bool conv_bias = true;
  bool proj_bias = false;

  void Add(uint64_t d_model, TensorList* list) const {
    list->Linear("mamba.in_proj", 2 * width, d_model, proj_bias);
    list->Add("mamba.conv1d.weight", {width, 1, kernel}, TensorKind::kPlainLinear, kernel);
    if (conv_bias) {
      list->Add("mamba.conv1d.bias", {width}, TensorKind::kBias);
    }
    list->Linear("mamba.x_proj", dt_rank + 2 * state, width);
    list->Linear("mamba.dt_proj", width, dt_rank, /*bias=*/true);
    list->Add("mamba.A_log", {width, state}, TensorKind::kNorm);
    list->Add("mamba.D", {width}, TensorKind::kNorm);
    list->Linear("mamba.out_proj", d_model, width, proj_bias);
    list->Norm("mamba.dt_layernorm", dt_rank);
    list->Norm("mamba.b_layernorm", state);
    list->Norm("mamba.c_layernorm", state);
  }
};

absl::StatusOr<Mamba> ReadMamba(const JsonReader& config, uint64_t d_model) {
  Mamba mamba;
  ASSIGN_OR_RETURN(const uint64_t expand, config.PositiveOr({"mamba_expand"}, 2, 64));
  mamba.width = expand * d_model;
  ASSIGN_OR_RETURN(mamba.state, config.PositiveOr({"mamba_d_state"}, 16, kMaxWidth));
  ASSIGN_OR_RETURN(mamba.kernel, config.PositiveOr({"mamba_d_conv"}, 4, kMaxWidth));
  mamba.dt_rank = (d_model + 15) / 16;
  if (!config.Holds("mamba_dt_rank", "auto")) {
    ASSIGN_OR_RETURN(
        mamba.dt_rank,
        config.PositiveOr({"mamba_dt_rank"}, static_cast<uint32_t>(mamba.dt_rank), kMaxWidth));
  }
  ASSIGN_OR_RETURN(mamba.conv_bias, config.BoolOr({"mamba_conv_bias"}, true));
  ASSIGN_OR_RETURN(mamba.proj_bias, config.BoolOr({"mamba_proj_bias"}, false));
  return mamba;
}

absl::Status Read(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  moe.routing = SoftmaxRouting();
  RETURN_IF_ERROR(ReadExpertCounts(config, &moe.routing));
  RETURN_IF_ERROR(ReadSilu(config));
  // One width for layers with and without experts.
  RETURN_IF_ERROR(ReadExpert(config, "intermediate_size", *layout, &moe.expert));
  ASSIGN_OR_RETURN(const Pattern sparse, ReadPeriod(config, "expert", 2, 1));
  ASSIGN_OR_RETURN(const Pattern attends, ReadPeriod(config, "attn", 8, 4));
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  ASSIGN_OR_RETURN(const Mamba mamba, ReadMamba(config, d_model));
  const auto tensors = [&](uint32_t index, bool has_experts, TensorList* list) {
    list->Norm("input_layernorm", d_model);
    list->Norm("pre_ff_layernorm", d_model);
    if (attends[index]) {
      AddGroupedAttention(attention, d_model, false, false, list);
    } else {
      mamba.Add(d_model, list);
    }
    if (!has_experts) {
      list->Glu("feed_forward", d_model, moe.expert.intermediate_size);
    }
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({.norm = "final_layernorm"}, layout);
  return absl::OkStatus();
}

nlohmann::ordered_json Synthetic(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticDecoder(options);
  config["head_dim"] = options.d_model / config["num_attention_heads"].get<uint32_t>();
  config["intermediate_size"] = options.intermediate_size;
  config["num_experts"] = options.num_experts;
  config["num_experts_per_tok"] = SyntheticTopK(options);
  config["expert_layer_period"] = options.moe_every;
  config["expert_layer_offset"] = options.moe_every - 1;
  // Mamba first, then attention.
  config["attn_layer_period"] = 2;
  config["attn_layer_offset"] = 1;
  config["use_mamba_kernels"] = false;
  config["mamba_d_state"] = 16;
  config["mamba_d_conv"] = 4;
  config["mamba_expand"] = 2;
  config["mamba_dt_rank"] = "auto";
  config["mamba_conv_bias"] = true;
  config["mamba_proj_bias"] = false;
  config["pad_token_id"] = 0;
  return config;
}

}  // namespace

const Family& JambaFamily() {
  static constexpr absl::string_view kTypes[] = {"jamba"};
  static constexpr absl::string_view kArchitectures[] = {"JambaForCausalLM"};
  static const Family kFamily = {.name = "jamba",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kStorages,
                                 .synthetic_options = kOptions,
                                 .read = &Read,
                                 .synthetic_config = &Synthetic};
  return kFamily;
}

}  // namespace expertmesh::checkpoint
