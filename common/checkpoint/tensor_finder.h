// Turns places into matrices: finds tensors by name, checks them, and views the meant part.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_TENSOR_FINDER_H_
#define EXPERTMESH_COMMON_CHECKPOINT_TENSOR_FINDER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/checkpoint/model_layout.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/tensor_places.h"
#include "common/model/expert_weights.h"
#include "common/tensor/matrix_view.h"

namespace expertmesh::checkpoint {

// Immutable and thread-safe. Errors name the file and the tensor: NOT_FOUND when there is none,
// INVALID_ARGUMENT when its type or shape is not what config.json asks for.
class TensorFinder {
 public:
  // `layout` and `tensors` must outlive the finder.
  TensorFinder(const ModelLayout& layout, const SafetensorsReader& tensors)
      : layout_(layout), tensors_(tensors) {}

  // One expert of `num_experts`; `prefix` is MoePrefix of its layer.
  absl::StatusOr<ExpertWeights> Expert(const ExpertPlaces& places, const std::string& prefix,
                                       uint32_t expert, uint32_t num_experts, uint64_t width) const;

  // A linear that is no expert's; in FP8 checkpoints it is quantised.
  absl::StatusOr<MatrixView> Linear(const std::string& name, uint64_t outputs,
                                    uint64_t inputs) const;
  // A matrix that is no expert's: never quantised.
  absl::StatusOr<MatrixView> Plain(const std::string& name, uint64_t outputs,
                                   uint64_t inputs) const;
  // A vector [count] (or [1, count]), as [1, count].
  absl::StatusOr<MatrixView> Vector(const std::string& name, uint64_t count) const;

 private:
  // Which expert of how many, in tensors that they share.
  struct Scope {
    const std::string& prefix;
    uint32_t expert;
    uint32_t num_experts;
  };

  absl::StatusOr<MatrixView> Matrix(const TensorPlace& place, const Scope& scope, uint64_t outputs,
                                    uint64_t inputs) const;
  absl::StatusOr<MatrixView> Mxfp4(const TensorPlace& place, const Scope& scope, uint64_t outputs,
                                   uint64_t inputs) const;
  absl::StatusOr<MatrixView> Bias(const TensorPlace& place, const Scope& scope,
                                  uint64_t outputs) const;
  // Scales of the F8_E4M3 tensor `name`.
  absl::StatusOr<BlockScales> Fp8Scales(const std::string& name, const TensorPlace& place,
                                        const Scope& scope, uint64_t outputs,
                                        uint64_t inputs) const;
  absl::StatusOr<const TensorView*> Find(const std::string& name,
                                         const std::vector<uint64_t>& shape) const;
  absl::Status Wrong(const std::string& name, const TensorView& tensor,
                     absl::string_view what) const;

  const ModelLayout& layout_;
  const SafetensorsReader& tensors_;
};

// How a checkpoint names and stores its MoE layers.
struct ChosenStorage {
  const Storage* storage = nullptr;
  // One of kModelPrefixes.
  absl::string_view prefix;
};

// The storage and prefix most of whose names are in the checkpoint, judged by the first MoE layer;
// the family's first ones when none is.
ChosenStorage ChooseStorage(const ModelLayout& layout, const SafetensorsReader& tensors);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_TENSOR_FINDER_H_
