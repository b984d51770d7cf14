#include "common/cuda/cublas.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/cuda/cuda_status.h"

namespace expertmesh::cuda {
namespace {

// What cuBLAS asks for on Hopper; elsewhere less is enough.
constexpr size_t kWorkspaceBytes = size_t{32} << 20;

absl::StatusCode CodeOf(cublasStatus_t error) {
  switch (error) {
    case CUBLAS_STATUS_ALLOC_FAILED:
      return absl::StatusCode::kResourceExhausted;
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return absl::StatusCode::kUnimplemented;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status ToStatus(cublasStatus_t error, absl::string_view call) {
  if (error == CUBLAS_STATUS_SUCCESS) {
    return absl::OkStatus();
  }
  // cuBLAS says of a lost device no more than that something failed.
  if (const cudaError_t cause = cudaPeekAtLastError(); IsSticky(cause)) {
    return ToStatus(cause, call);
  }
  CountError(error == CUBLAS_STATUS_ALLOC_FAILED ? ErrorKind::kMemory : ErrorKind::kOther);
  const absl::string_view what_to_do =
      error == CUBLAS_STATUS_ALLOC_FAILED
          ? "hold fewer experts on the device"
          : "compute with the products of this program, which need no cuBLAS";
  return absl::Status(CodeOf(error),
                      absl::StrCat(call, ": ", cublasGetStatusString(error), "; ", what_to_do));
}

Cublas& Cublas::operator=(Cublas&& other) noexcept {
  if (this != &other) {
    Destroy();
    workspace_ = std::move(other.workspace_);
    handle_ = std::exchange(other.handle_, nullptr);
  }
  return *this;
}

absl::StatusOr<Cublas> Cublas::Create(int device, const Stream& stream) {
  Cublas cublas;
  ASSIGN_OR_RETURN(cublas.workspace_, DeviceMemory::Allocate(device, kWorkspaceBytes));
  if (const cublasStatus_t created = cublasCreate(&cublas.handle_);
      created != CUBLAS_STATUS_SUCCESS) {
    cublas.handle_ = nullptr;
    return ToStatus(created, "cublasCreate");
  }
  RETURN_IF_ERROR(ToStatus(cublasSetStream(cublas.handle_, stream.get()), "cublasSetStream"));
  RETURN_IF_ERROR(ToStatus(
      cublasSetWorkspace(cublas.handle_, cublas.workspace_.data(), cublas.workspace_.size()),
      "cublasSetWorkspace"));
  RETURN_IF_ERROR(
      ToStatus(cublasSetMathMode(cublas.handle_, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION),
               "cublasSetMathMode"));
  return cublas;
}

void Cublas::Destroy() {
  if (handle_ != nullptr) {
    (void)cublasDestroy(handle_);
    handle_ = nullptr;
  }
}

}  // namespace expertmesh::cuda
