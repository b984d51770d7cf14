// The identity of a checkpoint.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_FINGERPRINT_H_
#define EXPERTMESH_COMMON_CHECKPOINT_FINGERPRINT_H_

#include "absl/types/span.h"
#include "common/checkpoint/safetensors.h"
#include "common/model/model_description.h"
#include "common/model/model_identity.h"
#include "common/tensor/matrix_view.h"

namespace expertmesh::checkpoint {

// fingerprint: SHA-256 as 64 hex digits over the configuration of the MoE layers, (name, type,
// shape) of every tensor that the index lists (all, where there is none), and the first 4 KiB of
// each gate. outline: over the configuration and the names alone, which config.json and the index
// tell.
//
// Reads nothing of the files but the beginning of each of `gates`; these are all of the model's,
// unless `tensors` is not complete().
ModelIdentity IdentityOf(const ModelDescription& model, const SafetensorsReader& tensors,
                         absl::Span<const MatrixView> gates);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_FINGERPRINT_H_
