// Memory for packed weights: whole pages straight from the kernel, which go back to it when freed.
#ifndef EXPERTMESH_COMMON_EXPERTS_PACKED_MEMORY_H_
#define EXPERTMESH_COMMON_EXPERTS_PACKED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace expertmesh::experts {

// Movable, not copyable. Not through malloc: weights that are unloaded must leave the resident set,
// and the process tunes malloc to keep what is freed.
class PackedMemory {
 public:
  PackedMemory() = default;
  ~PackedMemory();
  PackedMemory(PackedMemory&& other) noexcept { *this = std::move(other); }
  PackedMemory& operator=(PackedMemory&& other) noexcept;

  // At least `size` bytes, all zero, aligned to a page; to a huge page when `huge_pages` is set and
  // one fits (the kernel is asked for huge pages then, and may decline without harm).
  //   RESOURCE_EXHAUSTED  no memory.
  static absl::StatusOr<PackedMemory> Allocate(size_t size, bool huge_pages);

  // What Allocate(size) would hold.
  static size_t HeldBytes(size_t size);

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  // What is really held: `size` in whole pages.
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_PACKED_MEMORY_H_
