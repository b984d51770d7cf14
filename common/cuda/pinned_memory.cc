#include "common/cuda/pinned_memory.h"

#include <cuda_runtime_api.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/cuda/cuda_status.h"

namespace expertmesh::cuda {
namespace {

constexpr size_t kAlignment = 64;

}  // namespace

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  if (this != &other) {
    Free();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    pinned_ = std::exchange(other.pinned_, false);
  }
  return *this;
}

absl::Status PinnedMemory::Grow(int device, size_t size) {
  if (size <= size_) {
    return absl::OkStatus();
  }
  Free();
  RETURN_IF_ERROR(ToStatus(cudaSetDevice(device), "cudaSetDevice"));
  const size_t wanted = (size + size / 4 + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = nullptr;
  const absl::Status pinned = ToStatus(cudaMallocHost(&memory, wanted), "cudaMallocHost");
  if (IsDeviceLost(pinned)) {
    return pinned;
  }
  if (!pinned.ok()) {
    memory = std::aligned_alloc(kAlignment, wanted);
  }
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no ", wanted, " bytes of memory for copies"));
  }
  data_ = static_cast<uint8_t*>(memory);
  size_ = wanted;
  pinned_ = pinned.ok();
  return absl::OkStatus();
}

void PinnedMemory::Free() {
  if (pinned_) {
    (void)cudaFreeHost(data_);
  } else {
    std::free(data_);
  }
  data_ = nullptr;
  size_ = 0;
  pinned_ = false;
}

}  // namespace expertmesh::cuda
