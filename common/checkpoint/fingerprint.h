// The identity of a checkpoint.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_FINGERPRINT_H_
#define EXPERTMESH_COMMON_CHECKPOINT_FINGERPRINT_H_

#include <string>

#include "absl/types/span.h"
#include "common/checkpoint/safetensors.h"
#include "common/model/model_description.h"
#include "common/tensor/matrix_view.h"

namespace expertmesh::checkpoint {

// SHA-256 as 64 hex digits over: the configuration of the MoE layers, (name, type, shape) of every
// tensor, and the first 4 KiB of each of `gates`. Reads nothing else of the files.
std::string CheckpointFingerprint(const ModelDescription& model, const SafetensorsReader& tensors,
                                  absl::Span<const MatrixView> gates);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_FINGERPRINT_H_
