// Errors of the CUDA runtime as absl::Status.
#ifndef EXPERTMESH_COMMON_CUDA_CUDA_STATUS_H_
#define EXPERTMESH_COMMON_CUDA_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace expertmesh::cuda {

// Whether nothing but a new process can use the device after `error`.
bool IsSticky(cudaError_t error);

// OK for cudaSuccess; otherwise names `call`, the error and what to do about it, and takes an error
// that is not sticky from the runtime's memory of the last one. Thread-safe.
//   RESOURCE_EXHAUSTED   no memory.
//   FAILED_PRECONDITION  no device, no driver, no code for the device.
//   UNAVAILABLE          sticky: IsDeviceLost() is true of the status.
//   INTERNAL             any other.
absl::Status ToStatus(cudaError_t error, absl::string_view call);

// Errors of CUDA and cuBLAS that ToStatus has named since the process began. Thread-safe.
struct ErrorCounts {
  uint64_t memory = 0;    // There was not enough.
  uint64_t hardware = 0;  // ECC, NVLink, the device itself.
  uint64_t other = 0;
};
ErrorCounts CountedErrors();
// Counts one.
enum class ErrorKind { kMemory, kHardware, kOther };
void CountError(ErrorKind kind);

// A status that IsDeviceLost, and says "the device is lost: ...".
absl::Status DeviceLost(absl::string_view why);
bool IsDeviceLost(const absl::Status& status);

}  // namespace expertmesh::cuda

#endif  // EXPERTMESH_COMMON_CUDA_CUDA_STATUS_H_
