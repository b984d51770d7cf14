// Weights of a MoE layer that config.json leaves out.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_IGNORED_WEIGHTS_H_
#define EXPERTMESH_COMMON_CHECKPOINT_IGNORED_WEIGHTS_H_

#include <string>

#include "absl/status/status.h"
#include "common/checkpoint/model_layout.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/tensor_places.h"

namespace expertmesh::checkpoint {

// A layer that is computed without weights that lie beside it is most likely computed wrong: shared
// experts, biases, or more experts than config.json gives the layer. `prefix` is MoePrefix of the
// layer. INVALID_ARGUMENT names the file, the tensor and what config.json says.
absl::Status CheckNothingIgnored(const ModelLayout& layout, const MoeLayerDescription& layer,
                                 const Storage& storage, const std::string& prefix,
                                 const SafetensorsReader& tensors);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_IGNORED_WEIGHTS_H_
