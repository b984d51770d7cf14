// Memory of a device.
#ifndef EXPERTMESH_COMMON_CUDA_DEVICE_MEMORY_H_
#define EXPERTMESH_COMMON_CUDA_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace expertmesh::cuda {

// Movable, not copyable; freed with its owner, on whichever thread that is. Not thread-safe.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory() { Free(); }
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;

  // `size` bytes of device `device`, aligned to 256, uninitialised.
  //   RESOURCE_EXHAUSTED  the device has none.
  static absl::StatusOr<DeviceMemory> Allocate(int device, size_t size);

  // Makes room for `size` bytes, with some to spare; contents are undefined afterwards. Memory only
  // grows. Nothing on the device may use it meanwhile.
  absl::Status Grow(int device, size_t size);

  void* data() const { return data_; }
  template <typename T>
  T* as(size_t offset_bytes = 0) const {
    return reinterpret_cast<T*>(static_cast<uint8_t*>(data_) + offset_bytes);
  }
  size_t size() const { return size_; }

 private:
  void Free();

  int device_ = 0;
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace expertmesh::cuda

#endif  // EXPERTMESH_COMMON_CUDA_DEVICE_MEMORY_H_
