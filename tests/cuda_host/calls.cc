#include "tests/cuda_host/calls.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "tests/cuda_host/die.h"

namespace expertmesh::cuda_host {
namespace {

thread_local bool in_host_function = false;

// The calling thread's last error, of the resets_ that it was kept at.
thread_local cudaError_t last_error = cudaSuccess;
thread_local uint64_t last_error_resets = 0;

cudaError_t ErrorOf(Failure failure) {
  switch (failure) {
    case Failure::kOutOfMemory:
      return cudaErrorMemoryAllocation;
    case Failure::kLaunchFailure:
      return cudaErrorLaunchFailure;
    case Failure::kSticky:
      return cudaErrorIllegalAddress;
    case Failure::kUnsupported:
      return cudaErrorNotSupported;
    case Failure::kPlain:
      break;
  }
  return cudaErrorUnknown;
}

}  // namespace

void EnterHostFunctions() { in_host_function = true; }

Calls& Calls::Get() {
  static auto* const calls = new Calls();
  return *calls;
}

Calls::Verdict Calls::Begin(const char* call, Kind kind) {
  if (in_host_function) {
    Die(absl::StrCat("a host function calls ", call, ": it must make no CUDA calls"));
  }
  const absl::MutexLock lock(&mutex_);
  ++count_;
  last_ = call;
  if (no_driver_) {
    return {cudaErrorInsufficientDriver, cudaSuccess, true};
  }
  if (broken_ != cudaSuccess) {
    return {broken_};
  }
  if (count_ != fail_at_) {
    return {};
  }
  happened_ = true;
  const cudaError_t error = ErrorOf(failure_);
  if (failure_ == Failure::kLaunchFailure && kind == Kind::kEnqueues) {
    return {{}, error};
  }
  if (failure_ == Failure::kLaunchFailure || failure_ == Failure::kSticky) {
    broken_ = error;
  }
  return {error};
}

cudaError_t Calls::End(cudaError_t error) {
  const absl::MutexLock lock(&mutex_);
  if (error != cudaSuccess && error != cudaErrorNotReady) {
    last_error = error;
    last_error_resets = resets_;
  }
  return error;
}

cudaError_t Calls::LastError(bool clear) {
  const absl::MutexLock lock(&mutex_);
  if (no_driver_) {
    return cudaErrorInsufficientDriver;
  }
  if (broken_ != cudaSuccess) {
    return broken_;
  }
  const cudaError_t error = last_error_resets == resets_ ? last_error : cudaSuccess;
  if (clear) {
    last_error = cudaSuccess;
  }
  return error;
}

void Calls::Break(cudaError_t error) {
  const absl::MutexLock lock(&mutex_);
  broken_ = broken_ == cudaSuccess ? error : broken_;
}

cudaError_t Calls::broken() {
  const absl::MutexLock lock(&mutex_);
  return broken_;
}

void Calls::Fail(int64_t n, Failure failure) {
  const absl::MutexLock lock(&mutex_);
  fail_at_ = count_ + n;
  failure_ = failure;
  happened_ = false;
}

bool Calls::failure_happened() {
  const absl::MutexLock lock(&mutex_);
  return happened_;
}

int64_t Calls::count() {
  const absl::MutexLock lock(&mutex_);
  return count_;
}

std::string Calls::last() {
  const absl::MutexLock lock(&mutex_);
  return last_;
}

void Calls::RemoveDriver() {
  const absl::MutexLock lock(&mutex_);
  no_driver_ = true;
}

void Calls::Reset() {
  const absl::MutexLock lock(&mutex_);
  count_ = fail_at_ = 0;
  happened_ = no_driver_ = false;
  broken_ = cudaSuccess;
  last_.clear();
  ++resets_;
}

}  // namespace expertmesh::cuda_host
