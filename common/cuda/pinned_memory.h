// Memory of the host that a device copies from and to without a detour.
#ifndef EXPERTMESH_COMMON_CUDA_PINNED_MEMORY_H_
#define EXPERTMESH_COMMON_CUDA_PINNED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"

namespace expertmesh::cuda {

// Falls back to ordinary memory where none can be pinned: copies are slower then, and no longer
// overlap. Movable, not copyable. Not thread-safe.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  ~PinnedMemory() { Free(); }
  PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;

  // Makes room for `size` bytes, with some to spare, aligned to 64; contents are undefined
  // afterwards. Memory only grows. No copy may be under way meanwhile.
  //   RESOURCE_EXHAUSTED  no memory at all.
  //   UNAVAILABLE         the device is lost.
  absl::Status Grow(int device, size_t size);

  uint8_t* data() const { return data_; }
  template <typename T>
  T* as(size_t offset_bytes = 0) const {
    return reinterpret_cast<T*>(data_ + offset_bytes);
  }
  size_t size() const { return size_; }
  bool pinned() const { return pinned_; }

 private:
  void Free();

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool pinned_ = false;
};

}  // namespace expertmesh::cuda

#endif  // EXPERTMESH_COMMON_CUDA_PINNED_MEMORY_H_
