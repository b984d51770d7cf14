#include "client/cpp/decoder/model_tensors.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/model_config.h"
#include "common/tensor/decode_matrix.h"

namespace expertmesh::decoder {

ModelTensors::ModelTensors(checkpoint::ModelLayout layout,
                           std::unique_ptr<checkpoint::SafetensorsReader> tensors)
    : layout_(std::move(layout)),
      tensors_(std::move(tensors)),
      finder_(layout_, *tensors_),
      prefix_(checkpoint::ChooseStorage(layout_, *tensors_).prefix),
      own_head_(HasHeadOfItsOwn()) {}

absl::StatusOr<std::unique_ptr<ModelTensors>> ModelTensors::Open(const std::string& directory) {
  ASSIGN_OR_RETURN(checkpoint::ModelLayout layout, checkpoint::ReadModelLayoutFrom(directory));
  ASSIGN_OR_RETURN(std::unique_ptr<checkpoint::SafetensorsReader> tensors,
                   checkpoint::SafetensorsReader::OpenFolder(directory));
  std::unique_ptr<ModelTensors> model(new ModelTensors(std::move(layout), std::move(tensors)));
  if (model->own_head_) {
    model->warnings_.push_back(absl::StrCat(
        directory, "/config.json: tie_word_embeddings is true, but tensor ", model->HeadName(),
        " is there and is not the embeddings: it is used, as by transformers 5 (4 uses the "
        "embeddings). Set tie_word_embeddings to false, or remove the tensor"));
  }
  return model;
}

std::string ModelTensors::HeadName() const {
  // Beside the model, not inside it: "model." has it at the top, "language_model.model." one up.
  return absl::StrCat(absl::StripSuffix(prefix_, "model."), "lm_head.weight");
}

bool ModelTensors::HasHeadOfItsOwn() const {
  const auto& tensors = tensors_->tensors();
  const auto head = tensors.find(HeadName());
  const auto embeddings = tensors.find(absl::StrCat(prefix_, "embed_tokens.weight"));
  if (!layout_.tied_embeddings || head == tensors.end() || embeddings == tensors.end()) {
    return false;
  }
  const checkpoint::TensorView& one = head->second;
  const checkpoint::TensorView& other = embeddings->second;
  return one.dtype != other.dtype || one.shape != other.shape ||
         std::memcmp(one.data, other.data, one.bytes) != 0;
}

std::string ModelTensors::LayerName(uint32_t layer, absl::string_view name) const {
  return absl::StrCat(checkpoint::LayerPrefix(layout_, layout_.layers[layer], prefix_), name);
}

absl::StatusOr<experts::Linear::Part> ModelTensors::Projection(uint32_t layer,
                                                               absl::string_view name,
                                                               uint64_t outputs, uint64_t inputs,
                                                               bool bias) const {
  experts::Linear::Part part;
  ASSIGN_OR_RETURN(part.weight, finder_.Linear(LayerName(layer, absl::StrCat(name, ".weight")),
                                               outputs, inputs));
  if (bias) {
    ASSIGN_OR_RETURN(part.bias,
                     finder_.Vector(LayerName(layer, absl::StrCat(name, ".bias")), outputs));
  }
  return part;
}

absl::StatusOr<std::vector<float>> ModelTensors::Norm(uint32_t layer, absl::string_view name,
                                                      uint64_t count) const {
  ASSIGN_OR_RETURN(const MatrixView view,
                   finder_.Vector(LayerName(layer, absl::StrCat(name, ".weight")), count));
  return DecodeMatrix(view);
}

absl::StatusOr<ExpertWeights> ModelTensors::FeedForward(uint32_t layer, absl::string_view name,
                                                        uint64_t width) const {
  const uint64_t d_model = layout_.model.d_model;
  const auto matrix = [&](absl::string_view part, uint64_t outputs, uint64_t inputs) {
    return finder_.Linear(LayerName(layer, absl::StrCat(name, ".", part, ".weight")), outputs,
                          inputs);
  };
  ExpertWeights weights;
  ASSIGN_OR_RETURN(weights.gate, matrix("gate_proj", width, d_model));
  ASSIGN_OR_RETURN(weights.up, matrix("up_proj", width, d_model));
  ASSIGN_OR_RETURN(weights.down, matrix("down_proj", d_model, width));
  return weights;
}

absl::StatusOr<MatrixView> ModelTensors::Embeddings() const {
  return finder_.Plain(absl::StrCat(prefix_, "embed_tokens.weight"), layout_.vocab_size,
                       layout_.model.d_model);
}

absl::StatusOr<MatrixView> ModelTensors::Head() const {
  // One in a file that is missing may be the model's own: asking for it says so.
  const bool elsewhere = !tensors_->complete() && tensors_->absent().contains(HeadName());
  if (layout_.tied_embeddings && !own_head_ && !elsewhere) {
    return Embeddings();
  }
  return finder_.Plain(HeadName(), layout_.vocab_size, layout_.model.d_model);
}

absl::StatusOr<std::vector<float>> ModelTensors::LastNorm() const {
  ASSIGN_OR_RETURN(const MatrixView view,
                   finder_.Vector(absl::StrCat(prefix_, "norm.weight"), layout_.model.d_model));
  return DecodeMatrix(view);
}

}  // namespace expertmesh::decoder
