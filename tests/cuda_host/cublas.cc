// The calls of cuBLAS.
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cublas_v2.h"
#include "tests/cuda_host/blas.h"
#include "tests/cuda_host/calls.h"
#include "tests/cuda_host/die.h"
#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/objects.h"
#include "tests/cuda_host/queue.h"

namespace expertmesh::cuda_host {
namespace {

constexpr size_t kWorkspaceAlignment = 256;

// What cuBLAS makes of an error of the runtime.
cublasStatus_t StatusOf(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return CUBLAS_STATUS_SUCCESS;
    case cudaErrorInsufficientDriver:
      return CUBLAS_STATUS_NOT_INITIALIZED;
    case cudaErrorMemoryAllocation:
      return CUBLAS_STATUS_ALLOC_FAILED;
    case cudaErrorLaunchFailure:
    case cudaErrorIllegalAddress:
      return CUBLAS_STATUS_EXECUTION_FAILED;
    case cudaErrorNotSupported:
      return CUBLAS_STATUS_NOT_SUPPORTED;
    default:
      return CUBLAS_STATUS_INTERNAL_ERROR;
  }
}

// A call that does `work(failure)`, which returns a status.
template <typename F>
cublasStatus_t BlasCall(const char* name, cublasHandle_t handle, Calls::Kind kind, F work) {
  const Calls::Verdict verdict = Calls::Get().Begin(name, kind);
  if (verdict.error.has_value()) {
    return StatusOf(*verdict.error);
  }
  if (handle == nullptr) {
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  Objects::Get().Check(name, kBlasHandle, handle);
  return work(verdict.later);
}

// One group of a grouped call, and where its products are in the arrays of pointers.
struct Group {
  BlasShape shape;
  int first;
  int count;
};

struct GroupedProducts {
  BlasTypes types;
  std::vector<Group> groups;
  const void* const* a;
  const void* const* b;
  void* const* c;
};

void CheckPointerArray(const char* name, const void* array, int count) {
  const Memory::Range range = Memory::Get().Find(array);
  const size_t bytes = static_cast<size_t>(count) * sizeof(void*);
  if (range.kind != Memory::Kind::kDevice || range.left < bytes) {
    Die(absl::StrCat("cublasGemmGroupedBatchedEx: ", name, " must be device memory with ", count,
                     " pointers: a copy is missing, or it is too small"));
  }
  if (reinterpret_cast<uintptr_t>(array) % sizeof(void*) != 0) {
    Die(absl::StrCat("cublasGemmGroupedBatchedEx: ", name, " is not aligned"));
  }
}

void Run(const GroupedProducts& products) {
  for (const Group& group : products.groups) {
    for (int i = group.first; i < group.first + group.count; ++i) {
      const void* const a = products.a[i];
      const void* const b = products.b[i];
      void* const c = products.c[i];
      CheckMatrices("cublasGemmGroupedBatchedEx", i, products.types, group.shape, a, b, c);
      Multiply(products.types, group.shape, a, b, c);
    }
  }
}

}  // namespace
}  // namespace expertmesh::cuda_host

namespace cuda_host = expertmesh::cuda_host;
using cuda_host::BlasCall;
using cuda_host::Calls;
using cuda_host::Objects;
using cuda_host::Queue;

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  const Calls::Verdict verdict = Calls::Get().Begin("cublasCreate");
  if (verdict.error.has_value()) {
    return cuda_host::StatusOf(*verdict.error);
  }
  if (handle == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *handle = Objects::Get().Add<cublasContext>(cuda_host::kBlasHandle);
  return CUBLAS_STATUS_SUCCESS;
}

// Waits for the device, as documented; does its work whatever it returns.
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  const Calls::Verdict verdict = Calls::Get().Begin("cublasDestroy");
  if (verdict.no_driver || handle == nullptr) {
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  Queue::Get().AwaitAll();
  Objects::Get().Remove("cublasDestroy", cuda_host::kBlasHandle, handle);
  return cuda_host::StatusOf(verdict.error.value_or(cudaSuccess));
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  return BlasCall("cublasSetStream", handle, Calls::Kind::kOrdinary, [&](cudaError_t) {
    if (stream != nullptr) {
      Objects::Get().Check("cublasSetStream", cuda_host::kStream, stream);
    }
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
  });
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, size_t bytes) {
  return BlasCall("cublasSetWorkspace", handle, Calls::Kind::kOrdinary, [&](cudaError_t) {
    if (reinterpret_cast<uintptr_t>(workspace) % cuda_host::kWorkspaceAlignment != 0) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    const cuda_host::Memory::Range range = cuda_host::Memory::Get().Find(workspace);
    if (bytes > 0 && (range.kind != cuda_host::Memory::Kind::kDevice || range.left < bytes)) {
      cuda_host::Die("cublasSetWorkspace of what is not device memory of that size");
    }
    return CUBLAS_STATUS_SUCCESS;
  });
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  return BlasCall("cublasSetMathMode", handle, Calls::Kind::kOrdinary, [&](cudaError_t) {
    const int base = mode & ~CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
    return base == CUBLAS_DEFAULT_MATH || base == CUBLAS_PEDANTIC_MATH
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_NOT_SUPPORTED;
  });
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa,
                            cublasOperation_t transb, int m, int n, int k, const void* alpha,
                            const void* A, cudaDataType Atype, int lda, const void* B,
                            cudaDataType Btype, int ldb, const void* beta, void* C,
                            cudaDataType Ctype, int ldc, cublasComputeType_t computeType,
                            cublasGemmAlgo_t) {
  return BlasCall("cublasGemmEx", handle, Calls::Kind::kEnqueues, [&](cudaError_t failure) {
    const cuda_host::BlasTypes types = {Atype, Btype, Ctype, computeType};
    if (alpha == nullptr || beta == nullptr) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    const cuda_host::BlasShape shape = {transa,
                                        transb,
                                        m,
                                        n,
                                        k,
                                        lda,
                                        ldb,
                                        ldc,
                                        *static_cast<const float*>(alpha),
                                        *static_cast<const float*>(beta)};
    for (const cublasStatus_t status :
         {cuda_host::CheckShape(shape), cuda_host::CheckTypes(types, false)}) {
      if (status != CUBLAS_STATUS_SUCCESS) {
        return status;
      }
    }
    cuda_host::CheckMatrices("cublasGemmEx", -1, types, shape, A, B, C);
    if (m > 0 && n > 0) {
      Queue::Get().Add(handle->stream, {.what = "cublasGemmEx",
                                        .run = [=] { cuda_host::Multiply(types, shape, A, B, C); },
                                        .failure = failure});
    }
    return CUBLAS_STATUS_SUCCESS;
  });
}

cublasStatus_t cublasGemmGroupedBatchedEx(
    cublasHandle_t handle, const cublasOperation_t transa_array[],
    const cublasOperation_t transb_array[], const int m_array[], const int n_array[],
    const int k_array[], const void* alpha_array, const void* const Aarray[], cudaDataType_t Atype,
    const int lda_array[], const void* const Barray[], cudaDataType_t Btype, const int ldb_array[],
    const void* beta_array, void* const Carray[], cudaDataType_t Ctype, const int ldc_array[],
    int group_count, const int group_size[], cublasComputeType_t computeType) {
  const char* const name = "cublasGemmGroupedBatchedEx";
  return BlasCall(name, handle, Calls::Kind::kEnqueues, [&](cudaError_t failure) {
    auto products = std::make_shared<cuda_host::GroupedProducts>(
        cuda_host::GroupedProducts{{Atype, Btype, Ctype, computeType}, {}, Aarray, Barray, Carray});
    if (group_count < 0) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    int count = 0;
    for (int g = 0; g < group_count; ++g) {
      const cuda_host::BlasShape shape = {transa_array[g],
                                          transb_array[g],
                                          m_array[g],
                                          n_array[g],
                                          k_array[g],
                                          lda_array[g],
                                          ldb_array[g],
                                          ldc_array[g],
                                          static_cast<const float*>(alpha_array)[g],
                                          static_cast<const float*>(beta_array)[g]};
      if (group_size[g] < 0 || cuda_host::CheckShape(shape) != CUBLAS_STATUS_SUCCESS) {
        return CUBLAS_STATUS_INVALID_VALUE;
      }
      products->groups.push_back({shape, count, group_size[g]});
      count += group_size[g];
    }
    if (const cublasStatus_t status = cuda_host::CheckTypes(products->types, true);
        status != CUBLAS_STATUS_SUCCESS) {
      return status;
    }
    if (count > 0) {
      cuda_host::CheckPointerArray("Aarray", Aarray, count);
      cuda_host::CheckPointerArray("Barray", Barray, count);
      cuda_host::CheckPointerArray("Carray", Carray, count);
      Queue::Get().Add(
          handle->stream,
          {.what = name, .run = [products] { cuda_host::Run(*products); }, .failure = failure});
    }
    return CUBLAS_STATUS_SUCCESS;
  });
}

const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR:
      return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
      return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_LICENSE_ERROR:
      return "CUBLAS_STATUS_LICENSE_ERROR";
  }
  return "CUBLAS_STATUS_UNKNOWN";
}
