// Products as cuBLAS documents them: what is checked, and how they are computed.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_BLAS_H_
#define EXPERTMESH_TESTS_CUDA_HOST_BLAS_H_

#include <cstddef>

#include "cublas_v2.h"

namespace expertmesh::cuda_host {

// Types of a product. C = alpha op(A) op(B) + beta C, all column-major.
struct BlasTypes {
  cudaDataType a;
  cudaDataType b;
  cudaDataType c;
  cublasComputeType_t compute;
};

struct BlasShape {
  cublasOperation_t transa;
  cublasOperation_t transb;
  int m;
  int n;
  int k;
  int lda;
  int ldb;
  int ldc;
  float alpha;
  float beta;
};

size_t BytesOf(cudaDataType type);

// CUBLAS_STATUS_NOT_SUPPORTED for types that cuBLAS does not list: of cublasGemmEx, or of
// cublasGemmGroupedBatchedEx, whose list is shorter. Dies for those that it lists and the harness
// lacks.
cublasStatus_t CheckTypes(const BlasTypes& types, bool grouped);
// CUBLAS_STATUS_INVALID_VALUE for sizes and leading dimensions that are none.
cublasStatus_t CheckShape(const BlasShape& shape);
// Dies if a matrix is not in device memory, whole, and aligned as cuBLAS demands. `call` and
// `index` (below 0: none) name it.
void CheckMatrices(const char* call, int index, const BlasTypes& types, const BlasShape& shape,
                   const void* a, const void* b, const void* c);

// Computes it: float32 sums of exact products, in an order that depends on m and n, so that bits
// that cuBLAS does not promise are not there. The calling thread may touch device memory.
void Multiply(const BlasTypes& types, const BlasShape& shape, const void* a, const void* b,
              void* c);

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_BLAS_H_
