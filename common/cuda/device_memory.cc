#include "common/cuda/device_memory.h"

#include <cuda_runtime_api.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/cuda/cuda_status.h"

namespace expertmesh::cuda {

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  if (this != &other) {
    Free();
    device_ = other.device_;
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

absl::StatusOr<DeviceMemory> DeviceMemory::Allocate(int device, size_t size) {
  RETURN_IF_ERROR(ToStatus(cudaSetDevice(device), "cudaSetDevice"));
  DeviceMemory memory;
  memory.device_ = device;
  const cudaError_t error = cudaMalloc(&memory.data_, size);
  if (error != cudaSuccess) {
    memory.data_ = nullptr;
    return ToStatus(error, absl::StrCat("cudaMalloc of ", size, " bytes"));
  }
  memory.size_ = size;
  return memory;
}

absl::Status DeviceMemory::Grow(int device, size_t size) {
  if (size <= size_) {
    return absl::OkStatus();
  }
  *this = DeviceMemory();  // First: both may not fit.
  ASSIGN_OR_RETURN(*this, Allocate(device, size + size / 4));
  return absl::OkStatus();
}

void DeviceMemory::Free() {
  if (data_ == nullptr) {
    return;
  }
  // An error has no one to go to: what a lost device held ends with the process.
  (void)cudaSetDevice(device_);
  (void)cudaFree(data_);
  data_ = nullptr;
  size_ = 0;
}

}  // namespace expertmesh::cuda
