// What the experts of a model take on a node.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_PACKED_BYTES_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_PACKED_BYTES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/model_description.h"
#include "common/tensor/dtype.h"

namespace expertmesh::command {

struct PackedModel {
  ModelDescription model;
  // What experts are computed in.
  Dtype compute_dtype = Dtype::kF32;
  // Bytes of one expert on a node that runs the CPU backend, for each layer of the model.
  std::vector<uint64_t> expert_bytes;
};

// `directory`: a checkpoint, or config.json alone. `compute_dtype` and `weights` as the flags of
// expertmesh-expert: auto, f32 or bf16; expanded or compressed.
//   INVALID_ARGUMENT     a flag, or config.json.
//   FAILED_PRECONDITION  compressed weights of a folder that has none: how many bytes they take is
//                        not in config.json.
absl::StatusOr<PackedModel> ReadPackedModel(const std::string& directory,
                                            const std::string& compute_dtype,
                                            const std::string& weights);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_PACKED_BYTES_H_
