#include "common/base/status_macros.h"
#include "common/checkpoint/family_helpers.h"

namespace expertmesh {
namespace {

constexpr absl::string_view kModelTypes[] = {"mixtral"};
constexpr absl::string_view kArchitectures[] = {"MixtralForCausalLM"};

absl::Status Read(const ConfigReader& config, ModelLayout* layout) {
  ModelDescription& model = layout->model;
  MoeLayerDescription layer;
  RoutingOptions& routing = layer.routing;
  RETURN_IF_ERROR(ReadExpertCounts(config, &routing));
  routing.logit_dtype = LogitDType::kModel;
  routing.score = ScoreFunction::kSoftmax;
  routing.renormalise = Renormalise::kSum;
  routing.weight_dtype = WeightDType::kModel;
  RETURN_IF_ERROR(ReadActivation(config));
  layer.expert.d_model = model.d_model;
  ASSIGN_OR_RETURN(layer.expert.intermediate_size,
                   config.Positive({"intermediate_size"}, kMaxWidth));
  for (layer.layer = 0; layer.layer < model.num_layers; ++layer.layer) {
    model.layers.push_back(layer);
  }
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, model.d_model));
  AddLayerNorms(layout);
  AddGroupedAttention(attention, /*bias=*/false, layout);
  return absl::OkStatus();
}

absl::StatusOr<std::string> SyntheticConfig(const SyntheticOptions& options) {
  RETURN_IF_ERROR(RefuseOption(options.dense_layers > 0, "dense_layers", "mixtral"));
  RETURN_IF_ERROR(RefuseOption(options.n_group != 1, "n_group", "mixtral"));
  nlohmann::ordered_json config = SyntheticCommon(options, "mixtral", "MixtralForCausalLM");
  const GroupedAttention attention = SyntheticAttention(options);
  config["intermediate_size"] = options.intermediate_size;
  config["num_attention_heads"] = attention.heads;
  config["num_key_value_heads"] = attention.kv_heads;
  config["head_dim"] = attention.head_dim;
  config["num_local_experts"] = options.num_experts;
  config["num_experts_per_tok"] = options.top_k;
  config["router_jitter_noise"] = 0.0;
  config["sliding_window"] = nullptr;
  return config.dump(2);
}

}  // namespace

const Family& MixtralFamily() {
  static const Family kFamily = {
      .name = "mixtral",
      .model_types = kModelTypes,
      .architectures = kArchitectures,
      .patterns =
          {
              .gate = "model.layers.{layer}.block_sparse_moe.gate.weight",
              .select_bias = "",
              .expert_gate = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight",
              .expert_up = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight",
              .expert_down = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight",
              .shared_gate = "",
              .shared_up = "",
              .shared_down = "",
              .dense_gate = "",
              .dense_up = "",
              .dense_down = "",
          },
      .read = &Read,
      .synthetic_config = &SyntheticConfig,
  };
  return kFamily;
}

}  // namespace expertmesh
