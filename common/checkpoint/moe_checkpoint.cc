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
#include "common/checkpoint/ignored_weights.h"
#include "common/checkpoint/model_config.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/stored_dtype.h"
#include "common/checkpoint/tensor_finder.h"
#include "common/json/json_text.h"
#include "common/model/expert_slice.h"

namespace expertmesh::checkpoint {
namespace {

// Errors: why they cannot be had, files being missing.
struct LayerWeights {
  absl::StatusOr<GateWeights> gate;
  absl::StatusOr<ExpertWeights> shared;
  std::vector<absl::StatusOr<ExpertWeights>> experts;
};

class SafetensorsMoeCheckpoint final : public MoeCheckpoint {
 public:
  SafetensorsMoeCheckpoint(std::string directory, ModelLayout layout,
                           std::unique_ptr<SafetensorsReader> tensors)
      : directory_(std::move(directory)),
        layout_(std::move(layout)),
        tensors_(std::move(tensors)) {}

  // Finds and checks every MoE tensor. Call once, before anything else.
  absl::Status Load(const ChosenStorage& chosen);

  const ModelDescription& model() const override { return layout_.model; }
  const std::string& fingerprint() const override { return model_identity_.fingerprint; }
  std::string outline() const override { return model_identity_.outline; }
  absl::Span<const std::string> warnings() const override { return layout_.warnings; }
  absl::StatusOr<GateWeights> Gate(uint32_t layer) const override;
  absl::StatusOr<ExpertWeights> Expert(uint32_t layer, uint32_t expert) const override;
  absl::StatusOr<ExpertWeights> Shared(uint32_t layer) const override;
  uint64_t ExpertBytes(uint32_t layer, uint32_t expert) const override;
  std::string directory() const override { return directory_; }
  std::string identity() const override { return tensors_->Identity(); }
  void Release(const ExpertWeights& weights) const override;

 private:
  absl::Status ConfirmViews(absl::Span<const MatrixView> views) const override;
  absl::StatusOr<LayerWeights> FindLayer(const MoeLayerDescription& layer,
                                         const ChosenStorage& chosen) const;
  absl::StatusOr<GateWeights> FindGate(const TensorFinder& finder, const MoeLayerDescription& layer,
                                       const Storage& storage, const std::string& prefix) const;
  // OK when an error may wait until somebody asks for the weights.
  absl::Status UnlessElsewhere(const absl::Status& found) const;
  absl::StatusOr<const LayerWeights*> Layer(uint32_t layer) const;
  absl::StatusOr<const ExpertWeights*> Find(uint32_t layer, uint32_t expert) const;
  // The bytes between the first element of `matrix` and its last.
  static std::pair<const uint8_t*, size_t> Extent(const MatrixView& matrix);
  // A caller that asks for weights is about to read all of them: tells the system, which then makes
  // large reads instead of one page fault after the other.
  void WillNeed(const MatrixView& matrix) const;
  void WillNeed(const ExpertWeights& expert) const;

  const std::string directory_;
  // Constant after Load().
  ModelLayout layout_;
  const std::unique_ptr<SafetensorsReader> tensors_;
  std::vector<LayerWeights> layers_;  // As layout_.model.layers.
  ModelIdentity model_identity_;
};

absl::Status SafetensorsMoeCheckpoint::Load(const ChosenStorage& chosen) {
  std::vector<MatrixView> gates;
  for (const MoeLayerDescription& layer : layout_.model.layers) {
    ASSIGN_OR_RETURN(LayerWeights weights, FindLayer(layer, chosen));
    if (weights.gate.ok()) {
      gates.push_back(weights.gate->weight);
    }
    layers_.push_back(std::move(weights));
  }
  model_identity_ = IdentityOf(layout_.model, *tensors_, gates);
  return ConfirmViews(gates);
}

absl::Status SafetensorsMoeCheckpoint::UnlessElsewhere(const absl::Status& found) const {
  const bool may_be_elsewhere = absl::IsNotFound(found) && !tensors_->complete();
  return may_be_elsewhere ? absl::OkStatus() : found;
}

absl::StatusOr<GateWeights> SafetensorsMoeCheckpoint::FindGate(const TensorFinder& finder,
                                                               const MoeLayerDescription& layer,
                                                               const Storage& storage,
                                                               const std::string& prefix) const {
  const uint32_t experts = layer.routing.num_experts;
  const uint64_t d_model = layout_.model.d_model;
  GateWeights gate;
  ASSIGN_OR_RETURN(gate.weight, finder.Plain(TensorName(prefix, storage.gate), experts, d_model));
  if (layer.routing.logit_bias) {
    ASSIGN_OR_RETURN(gate.logit_bias,
                     finder.Vector(TensorName(prefix, storage.logit_bias), experts));
  }
  if (layer.routing.select_bias) {
    ASSIGN_OR_RETURN(gate.select_bias,
                     finder.Vector(TensorName(prefix, storage.select_bias), experts));
  }
  if (layer.shared_gate) {
    ASSIGN_OR_RETURN(gate.shared_gate,
                     finder.Plain(TensorName(prefix, storage.shared_gate), 1, d_model));
  }
  return gate;
}

absl::StatusOr<LayerWeights> SafetensorsMoeCheckpoint::FindLayer(
    const MoeLayerDescription& layer, const ChosenStorage& chosen) const {
  const TensorFinder finder(layout_, *tensors_);
  const Storage& storage = *chosen.storage;
  const std::string prefix = MoePrefix(layout_, layout_.layers[layer.layer], chosen.prefix);
  const uint32_t experts = layer.routing.num_experts;
  LayerWeights weights;
  weights.gate = FindGate(finder, layer, storage, prefix);
  RETURN_IF_ERROR(UnlessElsewhere(weights.gate.status()));
  if (layer.shared_intermediate_size > 0) {
    weights.shared = finder.Expert(storage.shared, prefix, 0, 1, layer.shared_intermediate_size);
    RETURN_IF_ERROR(UnlessElsewhere(weights.shared.status()));
  } else {
    weights.shared =
        absl::NotFoundError(absl::StrCat("layer ", layer.layer, " has no shared expert"));
  }
  for (uint32_t expert = 0; expert < experts; ++expert) {
    weights.experts.push_back(
        finder.Expert(storage.experts, prefix, expert, experts, layer.expert.intermediate_size));
    RETURN_IF_ERROR(UnlessElsewhere(weights.experts.back().status()));
  }
  RETURN_IF_ERROR(CheckNothingIgnored(layout_, layer, storage, prefix, *tensors_));
  return weights;
}

absl::StatusOr<const LayerWeights*> SafetensorsMoeCheckpoint::Layer(uint32_t layer) const {
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

absl::StatusOr<const ExpertWeights*> SafetensorsMoeCheckpoint::Find(uint32_t layer,
                                                                    uint32_t expert) const {
  ASSIGN_OR_RETURN(const LayerWeights* weights, Layer(layer));
  if (expert >= weights->experts.size()) {
    return absl::NotFoundError(absl::StrCat("expert ", expert, " of layer ", layer,
                                            " does not exist; the layer has ",
                                            weights->experts.size()));
  }
  RETURN_IF_ERROR(weights->experts[expert].status());
  return &*weights->experts[expert];
}

std::pair<const uint8_t*, size_t> SafetensorsMoeCheckpoint::Extent(const MatrixView& matrix) {
  if (matrix.empty()) {
    return {nullptr, 0};
  }
  const size_t last = (matrix.rows - 1) * matrix.row_stride + (matrix.cols - 1) * matrix.col_stride;
  return {matrix.data, ((last + 1) * BitsOf(matrix.dtype) + 7) / 8};
}

void SafetensorsMoeCheckpoint::WillNeed(const MatrixView& matrix) const {
  const auto [data, bytes] = Extent(matrix);
  tensors_->WillNeed(data, bytes);
}

void SafetensorsMoeCheckpoint::Release(const ExpertWeights& weights) const {
  for (const MatrixView& matrix : {weights.gate, weights.up, weights.down}) {
    const auto [data, bytes] = Extent(matrix);
    tensors_->DontNeed(data, bytes);
  }
}

absl::Status SafetensorsMoeCheckpoint::ConfirmViews(absl::Span<const MatrixView> views) const {
  for (const MatrixView& view : views) {
    RETURN_IF_ERROR(tensors_->CheckUnchanged(view.data));
    RETURN_IF_ERROR(tensors_->CheckUnchanged(view.scales.data));
  }
  return absl::OkStatus();
}

void SafetensorsMoeCheckpoint::WillNeed(const ExpertWeights& expert) const {
  for (const MatrixView& matrix : {expert.gate, expert.up, expert.down}) {
    WillNeed(matrix);
  }
}

absl::StatusOr<GateWeights> SafetensorsMoeCheckpoint::Gate(uint32_t layer) const {
  ASSIGN_OR_RETURN(const LayerWeights* weights, Layer(layer));
  if (weights->gate.ok()) {
    WillNeed(weights->gate->weight);
  }
  return weights->gate;
}

absl::StatusOr<ExpertWeights> SafetensorsMoeCheckpoint::Expert(uint32_t layer,
                                                               uint32_t expert) const {
  ASSIGN_OR_RETURN(const ExpertWeights* weights, Find(layer, expert));
  WillNeed(*weights);
  return *weights;
}

absl::StatusOr<ExpertWeights> SafetensorsMoeCheckpoint::Shared(uint32_t layer) const {
  ASSIGN_OR_RETURN(const LayerWeights* weights, Layer(layer));
  if (weights->shared.ok()) {
    WillNeed(*weights->shared);
  }
  return weights->shared;
}

uint64_t SafetensorsMoeCheckpoint::ExpertBytes(uint32_t layer, uint32_t expert) const {
  const absl::StatusOr<const ExpertWeights*> weights = Find(layer, expert);
  return weights.ok() ? StoredBytes(**weights) : 0;
}

// Refuses all methods but fp8 and mxfp4: each of the others names and types its tensors
// differently.
absl::Status CheckQuantisation(const std::string& directory, const ModelLayout& layout) {
  const std::string& method = layout.quantisation;
  if (method.empty() || method == "fp8" || method == "mxfp4") {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(directory, "/config.json: quantization_config: quant_method = ", Quoted(method),
                   " cannot be read; known are fp8 and mxfp4. Convert the checkpoint to BF16"));
}

}  // namespace

absl::Status MoeCheckpoint::ConfirmRead(const ExpertWeights& weights) const {
  return ConfirmViews({weights.gate, weights.up, weights.down, weights.gate_bias, weights.up_bias,
                       weights.down_bias});
}

absl::Status MoeCheckpoint::ConfirmRead(const GateWeights& weights) const {
  return ConfirmViews({weights.weight, weights.logit_bias, weights.select_bias, weights.noise,
                       weights.shared_gate});
}

absl::StatusOr<ExpertWeights> MoeCheckpoint::Hostable(uint32_t layer, uint32_t id) const {
  const MoeLayerDescription* const description = model().FindLayer(layer);
  const bool shared = description != nullptr && description->shared_intermediate_size > 0 &&
                      id == description->shared_expert_id();
  return shared ? Shared(layer) : Expert(layer, id);
}

uint64_t MoeCheckpoint::ExpertBytes(uint32_t layer, uint32_t expert) const {
  const absl::StatusOr<ExpertWeights> weights = Expert(layer, expert);
  return weights.ok() ? StoredBytes(*weights) : 0;
}

absl::StatusOr<std::shared_ptr<const MoeCheckpoint>> MoeCheckpoint::Open(
    const std::string& directory) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(directory, ignored)) {
    return absl::NotFoundError(absl::StrCat(directory, ": no such folder"));
  }
  ASSIGN_OR_RETURN(ModelLayout layout, ReadModelLayoutFrom(directory));
  RETURN_IF_ERROR(CheckQuantisation(directory, layout));
  ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsReader> tensors,
                   SafetensorsReader::OpenFolder(directory));
  const ChosenStorage chosen = ChooseStorage(layout, *tensors);
  layout.warnings.insert(layout.warnings.end(), tensors->warnings().begin(),
                         tensors->warnings().end());
  ReadStoredDtype(*tensors, chosen, absl::StrCat(directory, "/config.json"), &layout);
  auto checkpoint =
      std::make_shared<SafetensorsMoeCheckpoint>(directory, std::move(layout), std::move(tensors));
  RETURN_IF_ERROR(checkpoint->Load(chosen));
  return checkpoint;
}

}  // namespace expertmesh::checkpoint
