// gpt-oss: biases everywhere, gate and up interleaved, MXFP4 or BF16 with inputs first.
#include "common/base/status_macros.h"
#include "common/checkpoint/family_entries.h"
#include "common/checkpoint/family_helpers.h"
#include "common/checkpoint/synthetic_config.h"

namespace expertmesh::checkpoint {
namespace {

constexpr TensorPlace GateUp(absl::string_view name, Part part) {
  return {.name = name, .part = part, .stacking = Stacking::kLeading};
}

constexpr ExpertPlaces Interleaved(bool transposed, Encoding encoding) {
  ExpertPlaces places = {
      .gate = GateUp("mlp.experts.gate_up_proj", Part::kEven),
      .up = GateUp("mlp.experts.gate_up_proj", Part::kOdd),
      .down = {.name = "mlp.experts.down_proj", .stacking = Stacking::kLeading},
      .gate_bias = GateUp("mlp.experts.gate_up_proj_bias", Part::kEven),
      .up_bias = GateUp("mlp.experts.gate_up_proj_bias", Part::kOdd),
      .down_bias = {.name = "mlp.experts.down_proj_bias", .stacking = Stacking::kLeading}};
  for (TensorPlace* matrix : {&places.gate, &places.up, &places.down}) {
    matrix->transposed = transposed;
    matrix->encoding = encoding;
  }
  return places;
}

constexpr Storage kStorages[] = {
    {.gate = "mlp.router.weight",
     .logit_bias = "mlp.router.bias",
     .experts = Interleaved(/*transposed=*/true, Encoding::kPlain)},
    {.gate = "mlp.router.weight",
     .logit_bias = "mlp.router.bias",
     .experts = Interleaved(/*transposed=*/false, Encoding::kMxfp4)},
};

constexpr SyntheticOption kTopK[] = {SyntheticOption::kTopK};

absl::Status Read(const JsonReader& config, ModelLayout* layout) {
  MoeLayerDescription moe;
  moe.routing = SoftmaxRouting();
  moe.routing.logit_bias = true;
  moe.routing.scope = ScoreScope::kSelected;
  moe.routing.score_dtype = ScoreDtype::kModel;
  RETURN_IF_ERROR(ReadExpertCounts(config, &moe.routing));
  RETURN_IF_ERROR(ReadSilu(config));
  RETURN_IF_ERROR(ReadExpert(config, "intermediate_size", *layout, &moe.expert));
  moe.expert.activation = Activation::kClampedSwiglu;
  moe.expert.bias = true;
  ASSIGN_OR_RETURN(moe.expert.swiglu_limit, config.FloatOr({"swiglu_limit"}, 7.0f));
  // transformers reads it since 5.24; before, it was always this.
  ASSIGN_OR_RETURN(moe.expert.swiglu_alpha, config.FloatOr({"swiglu_alpha"}, 1.702f));
  ASSIGN_OR_RETURN(const Pattern sparse, EveryLayer(config));
  const uint64_t d_model = layout->model.d_model;
  ASSIGN_OR_RETURN(const GroupedAttention attention, ReadGroupedAttention(config, d_model));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr({"attention_bias"}, true));
  const auto tensors = [&](uint32_t, bool, TensorList* list) {
    AddLayerNorms(d_model, list);
    AddGroupedAttention(attention, d_model, bias, bias, list);
    list->Add("self_attn.sinks", {attention.heads}, TensorKind::kBias);
  };
  AddStack(0, moe, sparse, tensors, layout);
  AddDecoderEnds({}, layout);
  return absl::OkStatus();
}

nlohmann::ordered_json Synthetic(const SyntheticOptions& options) {
  nlohmann::ordered_json config = SyntheticDecoder(options);
  config["intermediate_size"] = options.intermediate_size;
  config["num_local_experts"] = options.num_experts;
  config["num_experts_per_tok"] = SyntheticTopK(options);
  config["attention_bias"] = true;
  config["swiglu_limit"] = 7.0;
  config["swiglu_alpha"] = 1.702;
  config["sliding_window"] = 128;
  config["rope_scaling"] = nullptr;
  config["router_aux_loss_coef"] = 0.9;
  return config;
}

}  // namespace

const Family& GptOssFamily() {
  static constexpr absl::string_view kTypes[] = {"gpt_oss"};
  static constexpr absl::string_view kArchitectures[] = {"GptOssForCausalLM"};
  static const Family kFamily = {.name = "gpt_oss",
                                 .model_types = kTypes,
                                 .architectures = kArchitectures,
                                 .stacks = kDecoder,
                                 .storages = kStorages,
                                 .synthetic_options = kTopK,
                                 .read = &Read,
                                 .synthetic_config = &Synthetic};
  return kFamily;
}

}  // namespace expertmesh::checkpoint
