#include "common/experts/cuda/device_state.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/cuda/cuda_status.h"

namespace expertmesh::experts {
namespace {

// Memory that may wait to be used again; one expert's, if that is more.
constexpr uint64_t kMostSpareBytes = uint64_t{256} << 20;

}  // namespace

absl::Status DeviceState::Count(size_t bytes, std::vector<cuda::DeviceMemory>* freed) {
  if (limit_ != 0 && bytes > limit_ - used_) {
    TakeSpare(freed);
  }
  if (limit_ != 0 && bytes > limit_ - used_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("an expert of ", bytes, " bytes beside ", used_, " of others is above the ",
                     limit_, " bytes of device memory allowed; allow more, or host fewer experts"));
  }
  used_ += bytes;
  return absl::OkStatus();
}

void DeviceState::Uncount(size_t bytes) {
  const absl::MutexLock lock(&mutex_);
  used_ -= bytes;
}

void DeviceState::TakeSpare(std::vector<cuda::DeviceMemory>* freed) {
  used_ -= spare_bytes_;
  spare_bytes_ = 0;
  *freed = std::exchange(spare_, {});
}

bool DeviceState::FreeSpare() {
  std::vector<cuda::DeviceMemory> freed;
  const absl::MutexLock lock(&mutex_);
  TakeSpare(&freed);
  return !freed.empty();
}

absl::StatusOr<cuda::DeviceMemory> DeviceState::TakeMemory(size_t bytes) {
  std::vector<cuda::DeviceMemory> freed;
  {
    const absl::MutexLock lock(&mutex_);
    const auto fits = std::find_if(spare_.begin(), spare_.end(),
                                   [bytes](const auto& spare) { return spare.size() == bytes; });
    if (fits != spare_.end()) {
      cuda::DeviceMemory memory = std::move(*fits);
      spare_.erase(fits);
      spare_bytes_ -= bytes;
      return memory;
    }
    RETURN_IF_ERROR(Count(bytes, &freed));
  }
  freed.clear();
  absl::StatusOr<cuda::DeviceMemory> memory = cuda::DeviceMemory::Allocate(device_, bytes);
  if (absl::IsResourceExhausted(memory.status()) && FreeSpare()) {
    memory = cuda::DeviceMemory::Allocate(device_, bytes);
  }
  if (!memory.ok()) {
    Uncount(bytes);
  }
  return memory;
}

void DeviceState::GiveBack(cuda::DeviceMemory memory) {
  // Freed after the lock is gone, where it is not kept.
  cuda::DeviceMemory freed;
  const absl::MutexLock lock(&mutex_);
  const size_t bytes = memory.size();
  if (lost_.ok() && (spare_.empty() || spare_bytes_ + bytes <= kMostSpareBytes)) {
    spare_.push_back(std::move(memory));
    spare_bytes_ += bytes;
  } else {
    used_ -= bytes;
    freed = std::move(memory);
  }
}

absl::Status DeviceState::lost() const {
  const absl::MutexLock lock(&mutex_);
  return lost_;
}

absl::Status DeviceState::Observe(absl::Status status) {
  if (!cuda::IsDeviceLost(status)) {
    return status;
  }
  {
    const absl::MutexLock lock(&mutex_);
    if (!lost_.ok()) {
      return status;
    }
    lost_ = status;
  }
  if (on_lost_ != nullptr) {
    on_lost_(status);
  }
  return status;
}

}  // namespace expertmesh::experts
