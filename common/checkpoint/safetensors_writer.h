// Writes safetensors files.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_SAFETENSORS_WRITER_H_
#define EXPERTMESH_COMMON_CHECKPOINT_SAFETENSORS_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/tensor/dtype.h"

namespace expertmesh::checkpoint {

struct TensorSpec {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<uint64_t> shape;
};

// Takes the next bytes of a tensor.
using ByteSink = std::function<absl::Status(const void* data, size_t bytes)>;

// Hands all bytes of tensor `index` (into the list of specs) to `sink`, in as many pieces as it
// likes.
using TensorProducer = std::function<absl::Status(size_t index, const ByteSink& sink)>;

enum class Durability {
  kRename,  // The file is there as a whole or not at all, unless the machine itself stops.
  kSync,    // Also after a power cut: synced before the rename.
};

// Writes PATH (through PATH.tmp and a rename; an existing PATH is replaced). `produce` is called
// once per tensor, not in the order of `specs`: tensors lie widest element first, so that every one
// is aligned to its element. INVALID_ARGUMENT when names repeat, a shape overflows, or a producer
// gives the wrong number of bytes; INTERNAL when the system refuses. Nothing is left behind then.
absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorSpec> specs,
                              const TensorProducer& produce,
                              Durability durability = Durability::kSync);

// A tensor in memory.
struct TensorToWrite {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<uint64_t> shape;
  absl::Span<const uint8_t> data;
};

// The same for tensors in memory.
absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorToWrite> tensors,
                              Durability durability = Durability::kSync);

// Writes a small file the same way.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view bytes,
                                 Durability durability = Durability::kSync);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_SAFETENSORS_WRITER_H_
