// The dtype of a model, by its files.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_STORED_DTYPE_H_
#define EXPERTMESH_COMMON_CHECKPOINT_STORED_DTYPE_H_

#include <string>

#include "common/checkpoint/model_layout.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/tensor_finder.h"

namespace expertmesh::checkpoint {

// Sets layout->model.dtype to the type of the embeddings, or of a norm when these are not there (or
// are quantised). Gates do not count, which many models keep in float32 beside all else in bf16. A
// folder with neither has what config.json says, or else the type of its first expert or gate.
// Where config.json says another type than the files, layout->warnings says so; `path` is its name.
void ReadStoredDtype(const SafetensorsReader& tensors, const ChosenStorage& chosen,
                     const std::string& path, ModelLayout* layout);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_STORED_DTYPE_H_
