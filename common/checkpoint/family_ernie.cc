// ERNIE-4.5-MoE: a bias added to softmax scores for selection, weights over a clamped sum.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"

namespace expertmesh::checkpoint {
namespace {

constexpr Storage StorageWith(const ExpertPlaces& experts) {
  return {
      .gate = "mlp.gate.weight",
      .select_bias = "mlp.moe_statics.e_score_correction_bias",
      .select_bias_is_row = true,
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
constexpr SyntheticOption kOptions[] = {SyntheticOption::kTopK, SyntheticOption::kDenseLayers,
                                        SyntheticOption::kMoeEvery, SyntheticOption::kDenseWidth,
                                        SyntheticOption::kSharedExperts};

// Every moe_layer_interval-th from moe_layer_start_index to moe_layer_end_index (-1: the last).
absl::StatusOr<Pattern> ReadPattern(const JsonReader& config) {
  ASSIGN_OR_RETURN(Pattern sparse, EveryLayer(config));
  ASSIGN_OR_RETURN(const uint32_t start, config.WholeOr({"moe_layer_start_index"}, 1));
  ASSIGN_OR_RETURN(const uint32_t interval, config.PositiveOr({"moe_layer_interval"}, 1));
  const uint32_t last = static_cast<uint32_t>(sparse.size()) - 1;
  uint32_t end = last;
  if (!config.HoldsMinusOne("moe_layer_end_index")) {
    ASSIGN_OR_RETURN(end, config.WholeOr({"moe_layer_end_index"}, last));
  }
  for (uint32_t layer = 0; layer < sparse.size(); ++layer) {
    sparse[layer] = (layer + 1) % interval == 0 && layer >= start && layer <= end;
  }
  return sparse;
}

absl::Status Read(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  moe.routing = SoftmaxRouting();
  moe.routing.logit_dtype = LogitDtype::kF32;
  moe.routing.select_bias = true;
  moe.routing.renormalise = Renormalise::kClampedSum;
  ASSIGN_OR_RETURN(moe.routing.renormalise_epsilon, config.FloatOr({"moe_norm_min"}, 1e-12f));
  RETURN_IF_ERROR(ReadExpertCounts(config, &moe.routing));
  RETURN_IF_ERROR(ReadSilu(config));
  RETURN_IF_ERROR(ReadExpert(config, "moe_intermediate_size", *layout, &moe.expert));
  RETURN_IF_ERROR(ReadSharedExperts(config, "moe_num_shared_experts", &moe));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"use_bias"}, false));
  if (bias) {
    return config.Error("use_bias = true must be false: shared experts have no place for biases");
  }
  ASSIGN_OR_RETURN(const Pattern sparse, ReadPattern(config));
  ASSIGN_OR_RETURN(const uint32_t dense_width, ReadDenseWidth(config, sparse));
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  const auto tensors = [&](uint32_t, bool has_experts, TensorList* list) {
    AddLayerNorms(d_model, list);
    AddGroupedAttention(attention, d_model, false, false, list);
    if (!has_experts) {
      list->Glu("mlp", d_model, dense_width);
    }
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({}, layout);
  return absl::OkStatus();
}

nlohmann::ordered_json Synthetic(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticDecoder(options);
  config["intermediate_size"] = SyntheticDenseWidth(options);
  config["moe_intermediate_size"] = options.intermediate_size;
  config["moe_num_experts"] = options.num_experts;
  config["moe_k"] = SyntheticTopK(options);
  config["moe_num_shared_experts"] = SyntheticSharedExperts(options);
  config["moe_layer_start_index"] = options.dense_layers;
  config["moe_layer_end_index"] = std::max(1u, options.num_layers) - 1;
  config["moe_layer_interval"] = options.moe_every;
  config["moe_norm_min"] = 1e-12;
  config["use_bias"] = false;
  return config;
}

}  // namespace

const Family& Ernie45MoeFamily() {
  static constexpr absl::string_view kTypes[] = {"ernie4_5_moe"};
  static constexpr absl::string_view kArchitectures[] = {"Ernie4_5_MoeForCausalLM"};
  static const Family kFamily = {
      .name = "ernie4_5_moe",
      .model_types = kTypes,
      .architectures = kArchitectures,
      .stacks = kDecoder,
      .storages = kStorages,
      .tied_by_default = true,
      .why_absent = {.shared_experts = "moe_num_shared_experts is 0 or absent"},
      .synthetic_options = kOptions,
      .read = &Read,
      .synthetic_config = &Synthetic};
  return kFamily;
}

}  // namespace expertmesh::checkpoint
