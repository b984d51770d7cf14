// What the device is, and what kernels were allowed.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_DEVICE_STATE_H_
#define EXPERTMESH_TESTS_CUDA_HOST_DEVICE_STATE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "cuda_runtime_api.h"

namespace expertmesh::cuda_host {

// Thread-safe.
class DeviceState {
 public:
  static DeviceState& Get();

  cudaDeviceProp properties();
  void set_properties(const cudaDeviceProp& properties);
  // Dynamic shared memory that `kernel` may be launched with, and how to raise that.
  size_t SharedBytesOf(const void* kernel);
  void AllowSharedBytes(const void* kernel, size_t bytes);
  // How many launches of `kernel` with this grid were counted before.
  uint64_t CountLaunch(const void* kernel, const dim3& grid);
  void Reset();

 private:
  DeviceState();

  absl::Mutex mutex_;
  cudaDeviceProp properties_ ABSL_GUARDED_BY(mutex_);
  std::map<const void*, size_t> shared_bytes_ ABSL_GUARDED_BY(mutex_);
  std::map<std::tuple<const void*, unsigned int, unsigned int, unsigned int>, uint64_t> launches_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_DEVICE_STATE_H_
