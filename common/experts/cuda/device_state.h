// What a backend and its experts share about their device. Private to the room.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_DEVICE_STATE_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_DEVICE_STATE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/cuda/device_memory.h"

namespace expertmesh::experts {

// Thread-safe.
class DeviceState {
 public:
  // `limit` in bytes, 0: none. `on_lost` is called at most once, on the thread that finds out.
  DeviceState(int device, uint64_t limit, std::function<void(const absl::Status&)> on_lost)
      : device_(device), limit_(limit), on_lost_(std::move(on_lost)) {}

  int device() const { return device_; }

  // Memory for a packed expert, uninitialised. What was given back is taken first: the runtime
  // waits for all work of the device before it frees memory, and experts that come and go while
  // batches are computed are of a few sizes.
  //   RESOURCE_EXHAUSTED  it would be above the limit, or the device has none.
  absl::StatusOr<cuda::DeviceMemory> TakeMemory(size_t bytes);
  // Nothing on the device uses it any more.
  void GiveBack(cuda::DeviceMemory memory);

  // OK, or why the device is lost: then it stays so.
  absl::Status lost() const;

  // Returns `status`, of some call to the device; when it says that the device is lost, the state
  // says so from now on.
  absl::Status Observe(absl::Status status);

 private:
  // Counts an allocation, for which spare memory is put to `freed` where the limit wants it.
  absl::Status Count(size_t bytes, std::vector<cuda::DeviceMemory>* freed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Uncount(size_t bytes);
  void TakeSpare(std::vector<cuda::DeviceMemory>* freed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Frees all that is spare. Whether there was any.
  bool FreeSpare();

  const int device_;
  const uint64_t limit_;
  const std::function<void(const absl::Status&)> on_lost_;

  mutable absl::Mutex mutex_;
  uint64_t used_ ABSL_GUARDED_BY(mutex_) = 0;  // By experts, and spare.
  std::vector<cuda::DeviceMemory> spare_ ABSL_GUARDED_BY(mutex_);
  uint64_t spare_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status lost_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_DEVICE_STATE_H_
