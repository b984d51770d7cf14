// Makes checkpoints of any known family and size, filled with seeded random weights, in the layout
// of Hugging Face: config.json and safetensors, every tensor of the real model.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_H_
#define EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_H_

#include <string>

#include "absl/status/status.h"
#include "common/checkpoint/synthetic_options.h"

namespace expertmesh::checkpoint {

// Makes the folder `directory`; it appears as a whole or not at all (built beside it, in
// DIRECTORY.partial, which is replaced when it is there). Memory needed does not grow with the
// model. Linears are normal with standard deviation 1 / sqrt(inputs), so that activations keep
// their size.
//   INVALID_ARGUMENT  sizes contradict each other (the message names the key of config.json), or
//                     the family has no place for an option.
//   ALREADY_EXISTS    `directory` is there and not empty.
//   INTERNAL          the system refuses to write.
absl::Status MakeSyntheticCheckpoint(const std::string& directory, const SyntheticOptions& options);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_SYNTHETIC_H_
