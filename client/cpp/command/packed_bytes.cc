#include "client/cpp/command/packed_bytes.h"

#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/model_config.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/backend_factory.h"
#include "common/experts/compute_dtype.h"

namespace expertmesh::command {
namespace {

bool HasWeights(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".safetensors") {
      return true;
    }
  }
  return false;
}

// Matrices of the right shape whose values are never read (Backend::PackedBytes).
ExpertWeights ShapesOf(const ExpertOptions& options, Dtype dtype) {
  static constexpr uint8_t kUnread = 0;
  const auto matrix = [dtype](size_t rows, size_t cols) {
    return MatrixView::RowMajor(&kUnread, dtype, rows, cols);
  };
  ExpertWeights weights;
  if (options.gated) {
    weights.gate = matrix(options.intermediate_size, options.d_model);
  }
  weights.up = matrix(options.intermediate_size, options.d_model);
  weights.down = matrix(options.d_model, options.intermediate_size);
  if (options.bias) {
    weights.gate_bias = options.gated ? matrix(1, options.intermediate_size) : weights.gate_bias;
    weights.up_bias = matrix(1, options.intermediate_size);
    weights.down_bias = matrix(1, options.d_model);
  }
  return weights;
}

}  // namespace

absl::StatusOr<PackedModel> ReadPackedModel(const std::string& directory,
                                            const std::string& compute_dtype,
                                            const std::string& weights) {
  PackedModel packed;
  ASSIGN_OR_RETURN(packed.model, checkpoint::ReadModelDescription(directory));
  std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint;
  if (HasWeights(directory)) {
    ASSIGN_OR_RETURN(checkpoint, checkpoint::MoeCheckpoint::Open(directory));
    packed.model.dtype = checkpoint->model().dtype;
  }
  experts::BackendOptions options;
  options.threads = 1;
  ASSIGN_OR_RETURN(options.weights, experts::ParseWeightStorage(weights));
  if (checkpoint == nullptr && options.weights == experts::WeightStorage::kCompressed) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory,
                     ": what compressed weights take is in the weights themselves, and "
                     "there are none here; use expanded ones or the whole checkpoint"));
  }
  ASSIGN_OR_RETURN(options.compute_dtype,
                   experts::ChooseComputeDtype(compute_dtype, packed.model.dtype));
  packed.compute_dtype = options.compute_dtype;
  ASSIGN_OR_RETURN(const std::unique_ptr<experts::Backend> backend,
                   experts::MakeBackend("cpu", options));
  for (const MoeLayerDescription& layer : packed.model.layers) {
    ExpertWeights expert = ShapesOf(layer.expert, packed.model.dtype);
    if (checkpoint != nullptr) {
      ASSIGN_OR_RETURN(expert, checkpoint->Expert(layer.layer, 0));
    }
    ASSIGN_OR_RETURN(const uint64_t bytes, backend->PackedBytes(layer.expert, expert, {}));
    packed.expert_bytes.push_back(bytes);
  }
  return packed;
}

}  // namespace expertmesh::command
