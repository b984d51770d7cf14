// The tensors of a checkpoint that are no expert's, by the names of the model.
#ifndef EXPERTMESH_CLIENT_CPP_DECODER_MODEL_TENSORS_H_
#define EXPERTMESH_CLIENT_CPP_DECODER_MODEL_TENSORS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/checkpoint/model_layout.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/tensor_finder.h"
#include "common/experts/linear.h"
#include "common/model/expert_weights.h"

namespace expertmesh::decoder {

// Immutable and thread-safe. Views are valid while it lives. Errors name file and tensor:
// NOT_FOUND, or INVALID_ARGUMENT for a wrong shape or type.
class ModelTensors {
 public:
  // Errors of ReadModelLayoutFrom and SafetensorsReader::OpenFolder.
  static absl::StatusOr<std::unique_ptr<ModelTensors>> Open(const std::string& directory);

  const checkpoint::ModelLayout& layout() const { return layout_; }

  // NAME.weight and, when `bias`, NAME.bias of a layer.
  absl::StatusOr<experts::Linear::Part> Projection(uint32_t layer, absl::string_view name,
                                                   uint64_t outputs, uint64_t inputs,
                                                   bool bias = false) const;
  // NAME.weight of a layer, [count].
  absl::StatusOr<std::vector<float>> Norm(uint32_t layer, absl::string_view name,
                                          uint64_t count) const;
  // NAME.gate_proj, up_proj and down_proj of a layer.
  absl::StatusOr<ExpertWeights> FeedForward(uint32_t layer, absl::string_view name,
                                            uint64_t width) const;

  absl::StatusOr<MatrixView> Embeddings() const;        // [vocab_size, d_model]
  absl::StatusOr<std::vector<float>> LastNorm() const;  // [d_model]
  // [vocab_size, d_model]: the embeddings when tied, unless the checkpoint has a head of its own
  // that differs from them.
  absl::StatusOr<MatrixView> Head() const;

  // SafetensorsReader::CheckUnchanged: of a view given here that was read, or of all files.
  absl::Status CheckUnchanged(const MatrixView& view) const {
    return tensors_->CheckUnchanged(view.data);
  }
  absl::Status CheckUnchanged() const { return tensors_->CheckUnchanged(); }

  // What a user of the checkpoint should be told: whole sentences.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  ModelTensors(checkpoint::ModelLayout layout,
               std::unique_ptr<checkpoint::SafetensorsReader> tensors);

  std::string LayerName(uint32_t layer, absl::string_view name) const;
  std::string HeadName() const;
  // Tied by config.json, but there are two tensors, and they are not the same.
  bool HasHeadOfItsOwn() const;

  const checkpoint::ModelLayout layout_;
  const std::unique_ptr<checkpoint::SafetensorsReader> tensors_;
  const checkpoint::TensorFinder finder_;
  const std::string prefix_;  // One of kModelPrefixes.
  const bool own_head_;
  std::vector<std::string> warnings_;
};

}  // namespace expertmesh::decoder

#endif  // EXPERTMESH_CLIENT_CPP_DECODER_MODEL_TENSORS_H_
