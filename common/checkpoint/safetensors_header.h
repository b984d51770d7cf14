// The header of a safetensors file:
//
//   8 bytes   length N of the header, little endian
//   N bytes   JSON: {"__metadata__": {string: string}, NAME: {"dtype": "BF16", "shape": [..],
//             "data_offsets": [begin, end]}, ...}; offsets count from the end of the header
//   rest      the tensors' bytes, without gaps or overlaps
#ifndef EXPERTMESH_COMMON_CHECKPOINT_SAFETENSORS_HEADER_H_
#define EXPERTMESH_COMMON_CHECKPOINT_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/tensor/dtype.h"

namespace expertmesh::checkpoint {

// Longest header that is accepted; the format's own limit.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsEntry {
  Dtype dtype = Dtype::kF32;
  std::vector<uint64_t> shape;
  // Bytes [begin, end) of the file.
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct SafetensorsHeader {
  absl::btree_map<std::string, SafetensorsEntry> tensors;
  absl::btree_map<std::string, std::string> metadata;
};

// Parses the header of a file and checks it against the file's size. `file` is the whole file;
// only the header's bytes are looked at. Errors name `source` and the tensor:
//   DATA_LOSS         truncated, no valid JSON, duplicate names, or offsets that do not cover the
//                     data exactly once, or a byte count that is not what type and shape ask for.
//   INVALID_ARGUMENT  an element type that is not known.
// Allocates in proportion to bytes that exist, never to a number they claim.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file,
                                                         absl::string_view source);

// Element type of a safetensors name ("BF16"); nothing when it is not known.
std::optional<Dtype> DtypeFromSafetensors(absl::string_view name);

// product(shape) * bits / 8; nothing when it overflows or is no whole number of bytes.
std::optional<uint64_t> TensorBytes(Dtype dtype, absl::Span<const uint64_t> shape);

// "[2, 3]".
std::string ShapeString(absl::Span<const uint64_t> shape);

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_SAFETENSORS_HEADER_H_
