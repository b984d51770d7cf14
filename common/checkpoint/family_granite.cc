// Granite-MoE, with a shared expert (Granite-MoE-Shared) and without.
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"

namespace expertmesh::checkpoint {
namespace {

constexpr Storage kStorages[] = {
    {.gate = "block_sparse_moe.router.layer.weight",
     .experts =
         Fused("block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"),
     .shared = Fused("shared_mlp.input_linear.weight", "shared_mlp.output_linear.weight",
                     Stacking::kPerExpert)},
};

constexpr SyntheticOption kTopK[] = {SyntheticOption::kTopK};
constexpr SyntheticOption kTopKAndShared[] = {SyntheticOption::kTopK,
                                              SyntheticOption::kSharedExperts};

absl::Status ReadGranite(const JsonReader& config, bool shared, ModelLayout* layout) {
  MoeLayerDescription moe;
  moe.routing = SoftmaxRouting();
  moe.routing.scope = ScoreScope::kSelected;
  RETURN_IF_ERROR(ReadExpertCounts(config, &moe.routing));
  RETURN_IF_ERROR(ReadSilu(config));
  RETURN_IF_ERROR(ReadExpert(config, "intermediate_size", *layout, &moe.expert));
  if (shared) {
    ASSIGN_OR_RETURN(moe.shared_intermediate_size,
                     config.WholeOr({"shared_intermediate_size"}, 0, kMaxWidth));
  }
  ASSIGN_OR_RETURN(const Pattern sparse, EveryLayer(config));
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"attention_bias"}, false));
  const auto tensors = [&](uint32_t, bool, TensorList* list) {
    AddLayerNorms(d_model, list);
    AddGroupedAttention(attention, d_model, bias, bias, list);
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({}, layout);
  return absl::OkStatus();
}

absl::Status ReadPlain(const JsonReader& config, ModelLayout* layout) {
  return ReadGranite(config, /*shared=*/false, layout);
}

absl::Status ReadShared(const JsonReader& config, ModelLayout* layout) {
  return ReadGranite(config, /*shared=*/true, layout);
}

nlohmann::ordered_json SyntheticPlain(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticDecoder(options);
  config["head_dim"] = options.d_model / config["num_attention_heads"].get<uint32_t>();
  config["intermediate_size"] = options.intermediate_size;
  config["num_local_experts"] = options.num_experts;
  config["num_experts_per_tok"] = SyntheticTopK(options);
  config["embedding_multiplier"] = 12.0;
  config["attention_multiplier"] = 1.0 / config["head_dim"].get<double>();
  config["residual_multiplier"] = 0.22;
  config["logits_scaling"] = 6.0;
  return config;
}

nlohmann::ordered_json SyntheticShared(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticPlain(options);
  config["shared_intermediate_size"] = SyntheticSharedExperts(options) * options.intermediate_size;
  return config;
}

}  // namespace

const Family& GraniteMoeFamily() {
  static constexpr absl::string_view kTypes[] = {"granitemoe"};
  static constexpr absl::string_view kArchitectures[] = {"GraniteMoeForCausalLM"};
  static const Family kFamily = {.name = "granitemoe",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kStorages,
                                 .synthetic_options = kTopK,
                                 .read = &ReadPlain,
                                 .synthetic_config = &SyntheticPlain};
  return kFamily;
}

const Family& GraniteSharedFamily() {
  static constexpr absl::string_view kTypes[] = {"granitemoeshared"};
  static constexpr absl::string_view kArchitectures[] = {"GraniteMoeSharedForCausalLM"};
  static const Family kFamily = {
      .name = "granitemoeshared",
      .model_types = kTypes,
      .architectures = kArchitectures,
      .stacks = kDecoder,
      .storages = kStorages,
      .why_absent = {.shared_experts = "shared_intermediate_size is 0 or absent"},
      .synthetic_options = kTopKAndShared,
      .read = &ReadShared,
      .synthetic_config = &SyntheticShared};
  return kFamily;
}

}  // namespace expertmesh::checkpoint
