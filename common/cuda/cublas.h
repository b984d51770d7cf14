// cuBLAS handles and errors.
#ifndef EXPERTMESH_COMMON_CUDA_CUBLAS_H_
#define EXPERTMESH_COMMON_CUDA_CUBLAS_H_

#include <cublas_v2.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/cuda/device_memory.h"
#include "common/cuda/stream.h"

namespace expertmesh::cuda {

// OK for CUBLAS_STATUS_SUCCESS; otherwise names `call`, the error and what to do about it.
//   RESOURCE_EXHAUSTED  no memory.
//   UNIMPLEMENTED       CUBLAS_STATUS_NOT_SUPPORTED.
//   UNAVAILABLE         the device is lost.
//   INTERNAL            any other.
absl::Status ToStatus(cublasStatus_t error, absl::string_view call);

// A handle whose work goes to one stream, with a workspace of its own, so that handles of other
// streams have nothing to do with it. Movable, not copyable. Not thread-safe.
class Cublas {
 public:
  Cublas() = default;
  ~Cublas() { Destroy(); }
  Cublas(Cublas&& other) noexcept { *this = std::move(other); }
  Cublas& operator=(Cublas&& other) noexcept;

  // Products of float32 are of float32 throughout, and sums of bf16 are float32 to their end.
  static absl::StatusOr<Cublas> Create(int device, const Stream& stream);

  cublasHandle_t get() const { return handle_; }

 private:
  void Destroy();

  DeviceMemory workspace_;
  cublasHandle_t handle_ = nullptr;
};

}  // namespace expertmesh::cuda

#endif  // EXPERTMESH_COMMON_CUDA_CUBLAS_H_
