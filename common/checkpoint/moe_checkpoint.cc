#include "common/checkpoint/moe_checkpoint.h"

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/families.h"
#include "common/checkpoint/fingerprint.h"
#include "common/checkpoint/json_text.h"
#include "common/checkpoint/model_config.h"
#include "common/checkpoint/safetensors.h"

namespace expertmesh {
namespace {

// The three tensors of a gated linear unit; null when there is none.
struct ExpertTensors {
  const TensorView* gate = nullptr;
  const TensorView* up = nullptr;
  const TensorView* down = nullptr;
};

struct LayerTensors {
  const TensorView* gate = nullptr;
  const TensorView* select_bias = nullptr;
  ExpertTensors shared;
  std::vector<ExpertTensors> experts;
};

MatrixView Matrix(const TensorView& tensor) {
  const bool is_vector = tensor.shape.size() == 1;
  const size_t rows = is_vector ? 1 : tensor.shape[0];
  const size_t cols = is_vector ? tensor.shape[0] : tensor.shape[1];
  return MatrixView::RowMajor(tensor.data, tensor.dtype, rows, cols);
}

class SafetensorsMoeCheckpoint final : public MoeCheckpoint {
 public:
  SafetensorsMoeCheckpoint(ModelLayout layout, std::unique_ptr<SafetensorsReader> tensors)
      : layout_(std::move(layout)), tensors_(std::move(tensors)) {}

  // Finds and checks every MoE tensor. Call once, before anything else.
  absl::Status Load();

  const ModelDescription& model() const override { return layout_.model; }
  const std::string& fingerprint() const override { return fingerprint_; }
  absl::StatusOr<GateWeights> Gate(uint32_t layer) const override;
  absl::StatusOr<ExpertWeights> Expert(uint32_t layer, uint32_t expert) const override;
  absl::StatusOr<ExpertWeights> Shared(uint32_t layer) const override;

 private:
  absl::StatusOr<const TensorView*> FindTensor(const std::string& name,
                                               std::vector<uint64_t> shape) const;
  absl::StatusOr<ExpertTensors> FindExpert(absl::string_view gate, absl::string_view up,
                                           absl::string_view down, uint32_t layer, uint32_t expert,
                                           uint64_t width) const;
  absl::StatusOr<LayerTensors> FindLayer(const MoeLayerDescription& layer) const;
  absl::StatusOr<const LayerTensors*> Layer(uint32_t layer) const;
  ExpertWeights Views(const ExpertTensors& expert) const;

  // Constant after Load().
  ModelLayout layout_;
  const std::unique_ptr<SafetensorsReader> tensors_;
  std::vector<LayerTensors> layers_;  // As layout_.model.layers.
  std::string fingerprint_;
};

absl::Status SafetensorsMoeCheckpoint::Load() {
  std::vector<const TensorView*> gates;
  for (const MoeLayerDescription& layer : layout_.model.layers) {
    ASSIGN_OR_RETURN(LayerTensors tensors, FindLayer(layer));
    gates.push_back(tensors.gate);
    layers_.push_back(std::move(tensors));
  }
  if (!layout_.dtype_known) {
    layout_.model.dtype = gates.front()->dtype;
  }
  fingerprint_ = CheckpointFingerprint(layout_.model, *tensors_, gates);
  return absl::OkStatus();
}

absl::StatusOr<const TensorView*> SafetensorsMoeCheckpoint::FindTensor(
    const std::string& name, std::vector<uint64_t> shape) const {
  ASSIGN_OR_RETURN(const TensorView* tensor, tensors_->Find(name));
  const auto wrong = [&](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat(tensors_->PathOf(*tensor), ": tensor ", Quoted(name), ": ", what));
  };
  if (!IsActivationDType(tensor->dtype)) {
    return wrong(absl::StrCat("type ", NameOf(tensor->dtype),
                              " cannot be used; accepted are F32, F16 and BF16. Convert the "
                              "checkpoint to one of them"));
  }
  if (tensor->shape != shape) {
    return wrong(absl::StrCat("shape ", ShapeString(tensor->shape), " must be ", ShapeString(shape),
                              " by config.json"));
  }
  return tensor;
}

absl::StatusOr<ExpertTensors> SafetensorsMoeCheckpoint::FindExpert(absl::string_view gate,
                                                                   absl::string_view up,
                                                                   absl::string_view down,
                                                                   uint32_t layer, uint32_t expert,
                                                                   uint64_t width) const {
  const uint64_t d_model = layout_.model.d_model;
  ExpertTensors tensors;
  ASSIGN_OR_RETURN(tensors.gate, FindTensor(TensorName(gate, layer, expert), {width, d_model}));
  ASSIGN_OR_RETURN(tensors.up, FindTensor(TensorName(up, layer, expert), {width, d_model}));
  ASSIGN_OR_RETURN(tensors.down, FindTensor(TensorName(down, layer, expert), {d_model, width}));
  return tensors;
}

absl::StatusOr<LayerTensors> SafetensorsMoeCheckpoint::FindLayer(
    const MoeLayerDescription& layer) const {
  const TensorPatterns& patterns = layout_.family->patterns;
  const uint64_t experts = layer.routing.num_experts;
  LayerTensors tensors;
  ASSIGN_OR_RETURN(tensors.gate, FindTensor(TensorName(patterns.gate, layer.layer),
                                            {experts, layout_.model.d_model}));
  if (layer.routing.select_bias) {
    ASSIGN_OR_RETURN(tensors.select_bias,
                     FindTensor(TensorName(patterns.select_bias, layer.layer), {experts}));
  }
  if (layer.shared_intermediate_size > 0) {
    ASSIGN_OR_RETURN(tensors.shared,
                     FindExpert(patterns.shared_gate, patterns.shared_up, patterns.shared_down,
                                layer.layer, 0, layer.shared_intermediate_size));
  }
  for (uint32_t expert = 0; expert < layer.routing.num_experts; ++expert) {
    ASSIGN_OR_RETURN(ExpertTensors found,
                     FindExpert(patterns.expert_gate, patterns.expert_up, patterns.expert_down,
                                layer.layer, expert, layer.expert.intermediate_size));
    tensors.experts.push_back(found);
  }
  return tensors;
}

absl::StatusOr<const LayerTensors*> SafetensorsMoeCheckpoint::Layer(uint32_t layer) const {
  const std::vector<MoeLayerDescription>& layers = layout_.model.layers;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].layer == layer) {
      return &layers_[i];
    }
  }
  return absl::NotFoundError(absl::StrCat("layer ", layer, " is not a MoE layer; the model has ",
                                          layers.size(), " from ", layers.front().layer, " to ",
                                          layers.back().layer));
}

ExpertWeights SafetensorsMoeCheckpoint::Views(const ExpertTensors& expert) const {
  // Whoever asks for an expert is about to read all of it: large reads instead of page faults.
  tensors_->WillNeed(*expert.gate);
  tensors_->WillNeed(*expert.up);
  tensors_->WillNeed(*expert.down);
  return {Matrix(*expert.gate), Matrix(*expert.up), Matrix(*expert.down)};
}

absl::StatusOr<GateWeights> SafetensorsMoeCheckpoint::Gate(uint32_t layer) const {
  ASSIGN_OR_RETURN(const LayerTensors* tensors, Layer(layer));
  tensors_->WillNeed(*tensors->gate);
  GateWeights gate;
  gate.weight = Matrix(*tensors->gate);
  if (tensors->select_bias != nullptr) {
    gate.select_bias = Matrix(*tensors->select_bias);
  }
  return gate;
}

absl::StatusOr<ExpertWeights> SafetensorsMoeCheckpoint::Expert(uint32_t layer,
                                                               uint32_t expert) const {
  ASSIGN_OR_RETURN(const LayerTensors* tensors, Layer(layer));
  if (expert >= tensors->experts.size()) {
    return absl::NotFoundError(absl::StrCat("expert ", expert, " of layer ", layer,
                                            " does not exist; the layer has ",
                                            tensors->experts.size()));
  }
  return Views(tensors->experts[expert]);
}

absl::StatusOr<ExpertWeights> SafetensorsMoeCheckpoint::Shared(uint32_t layer) const {
  ASSIGN_OR_RETURN(const LayerTensors* tensors, Layer(layer));
  if (tensors->shared.gate == nullptr) {
    return absl::NotFoundError(absl::StrCat("layer ", layer, " has no shared expert"));
  }
  return Views(tensors->shared);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const MoeCheckpoint>> MoeCheckpoint::Open(
    const std::string& directory) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(directory, ignored)) {
    return absl::NotFoundError(absl::StrCat(directory, ": no such folder"));
  }
  ASSIGN_OR_RETURN(ModelLayout layout, ReadModelLayoutFrom(directory));
  ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsReader> tensors,
                   SafetensorsReader::OpenFolder(directory));
  auto checkpoint =
      std::make_shared<SafetensorsMoeCheckpoint>(std::move(layout), std::move(tensors));
  RETURN_IF_ERROR(checkpoint->Load());
  return checkpoint;
}

}  // namespace expertmesh
