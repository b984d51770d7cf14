// What every call of the stand-ins begins with: counting, planned failures, errors that stay.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_CALLS_H_
#define EXPERTMESH_TESTS_CUDA_HOST_CALLS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "cuda_runtime_api.h"
#include "tests/cuda_host/cuda_host.h"

namespace expertmesh::cuda_host {

// Thread-safe, except Reset.
class Calls {
 public:
  static Calls& Get();

  // How a call goes on.
  struct Verdict {
    // What it must return, if anything but its own result.
    std::optional<cudaError_t> error;
    // What becomes of the work that it enqueues, once that is executed.
    cudaError_t later = cudaSuccess;
    // Whether the driver is missing: the call has no effect at all.
    bool no_driver = false;
  };
  enum class Kind { kOrdinary, kEnqueues };
  // Dies in a host function, which must make no calls.
  Verdict Begin(const char* call, Kind kind = Kind::kOrdinary);

  // Keeps `error` for cudaGetLastError, and returns it.
  cudaError_t End(cudaError_t error);
  cudaError_t LastError(bool clear);

  // An error of the device, which all later calls return.
  void Break(cudaError_t error);
  // cudaSuccess, or what the device broke with.
  cudaError_t broken();

  void Fail(int64_t n, Failure failure);
  bool failure_happened();
  int64_t count();
  std::string last();
  void RemoveDriver();
  void Reset();

 private:
  Calls() = default;

  absl::Mutex mutex_;
  int64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t fail_at_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: never.
  Failure failure_ ABSL_GUARDED_BY(mutex_) = Failure::kPlain;
  bool happened_ ABSL_GUARDED_BY(mutex_) = false;
  bool no_driver_ ABSL_GUARDED_BY(mutex_) = false;
  cudaError_t broken_ ABSL_GUARDED_BY(mutex_) = cudaSuccess;
  std::string last_ ABSL_GUARDED_BY(mutex_);
  uint64_t resets_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Marks the calling thread as one that runs host functions.
void EnterHostFunctions();

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_CALLS_H_
