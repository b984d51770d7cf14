// What config.json alone tells about a model.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_MODEL_CONFIG_H_
#define EXPERTMESH_COMMON_CHECKPOINT_MODEL_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/checkpoint/families.h"
#include "common/model/model_description.h"

namespace expertmesh::checkpoint {

// `path` is a checkpoint folder or its config.json. Reads nothing else.
//   NOT_FOUND         no such folder or file.
//   INVALID_ARGUMENT  unknown family (the message lists the known ones), or a contradictory or
//                     wrongly typed value (the message names file, key and value).
absl::StatusOr<ModelDescription> ReadModelDescription(const std::string& path);

// The same, with everything that is needed to find the tensors.
absl::StatusOr<ModelLayout> ReadModelLayoutFrom(const std::string& path);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_MODEL_CONFIG_H_
