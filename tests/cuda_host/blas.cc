#include "tests/cuda_host/blas.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cuda_bf16.h"
#include "tests/cuda_host/die.h"
#include "tests/cuda_host/memory.h"

namespace expertmesh::cuda_host {
namespace {

// A matrix in memory: `columns` columns of `rows` elements, `ld` apart.
struct Stored {
  const char* name;
  const void* data;
  cudaDataType type;
  int rows;
  int columns;
  int ld;
};

Stored StoredA(const BlasTypes& types, const BlasShape& shape, const void* data) {
  const bool plain = shape.transa == CUBLAS_OP_N;
  return {"A", data, types.a, plain ? shape.m : shape.k, plain ? shape.k : shape.m, shape.lda};
}

Stored StoredB(const BlasTypes& types, const BlasShape& shape, const void* data) {
  const bool plain = shape.transb == CUBLAS_OP_N;
  return {"B", data, types.b, plain ? shape.k : shape.n, plain ? shape.n : shape.k, shape.ldb};
}

// As documented for matrices of 16-bit types: 16 bytes if rows of k have a multiple of that,
// else 4.
size_t AlignmentOf(cudaDataType type, int k) {
  const size_t bytes = static_cast<size_t>(k) * BytesOf(type);
  if (BytesOf(type) == sizeof(float)) {
    return sizeof(float);
  }
  return bytes % 16 == 0 ? 16 : bytes % 4 == 0 ? 4 : BytesOf(type);
}

void CheckMatrix(const std::string& call, const Stored& matrix, size_t alignment) {
  const Memory::Range range = Memory::Get().Find(matrix.data);
  const std::string name = absl::StrCat(call, ": matrix ", matrix.name);
  if (range.kind != Memory::Kind::kDevice) {
    Die(absl::StrCat(name, " is not in device memory: a copy is missing, or it was freed"));
  }
  const size_t bytes =
      static_cast<size_t>(matrix.ld) * static_cast<size_t>(matrix.columns) * BytesOf(matrix.type);
  if (bytes > range.left) {
    Die(absl::StrCat(name, " has ", matrix.columns, " columns with a leading dimension of ",
                     matrix.ld, ": ", bytes, " bytes, but its allocation ends after ", range.left));
  }
  if (reinterpret_cast<uintptr_t>(matrix.data) % alignment != 0) {
    Die(absl::StrCat(name, " is not ", alignment, "-byte aligned"));
  }
}

float Load(const void* data, cudaDataType type, size_t index) {
  return type == CUDA_R_32F ? static_cast<const float*>(data)[index]
                            : __bfloat162float(static_cast<const __nv_bfloat16*>(data)[index]);
}

void Store(void* data, cudaDataType type, size_t index, float value) {
  if (type == CUDA_R_32F) {
    static_cast<float*>(data)[index] = value;
  } else {
    static_cast<__nv_bfloat16*>(data)[index] = __float2bfloat16_rn(value);
  }
}

// [k, outer], `outer` contiguous: op(A) as it is needed column by column, op(B) row by row.
std::vector<float> Unpacked(const Stored& matrix, bool k_is_column, int k, int outer) {
  std::vector<float> values(static_cast<size_t>(k) * static_cast<size_t>(outer));
  for (int i = 0; i < k; ++i) {
    for (int o = 0; o < outer; ++o) {
      const size_t column = static_cast<size_t>(k_is_column ? i : o);
      const size_t row = static_cast<size_t>(k_is_column ? o : i);
      values[static_cast<size_t>(i) * static_cast<size_t>(outer) + static_cast<size_t>(o)] =
          Load(matrix.data, matrix.type, column * static_cast<size_t>(matrix.ld) + row);
    }
  }
  return values;
}

bool IsOperation(cublasOperation_t op) {
  return op == CUBLAS_OP_N || op == CUBLAS_OP_T || op == CUBLAS_OP_C;
}

}  // namespace

size_t BytesOf(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }

cublasStatus_t CheckTypes(const BlasTypes& types, bool grouped) {
  const auto are = [&](cudaDataType in, cudaDataType out) {
    return types.a == in && types.b == in && types.c == out;
  };
  switch (types.compute) {
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_PEDANTIC:
      break;
    case CUBLAS_COMPUTE_32F_FAST_16F:
    case CUBLAS_COMPUTE_32F_FAST_16BF:
    case CUBLAS_COMPUTE_32F_FAST_TF32:
      Die("cuBLAS with fast compute types is not part of the harness");
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (are(CUDA_R_16F, CUDA_R_16F) || (!grouped && are(CUDA_R_16F, CUDA_R_32F))) {
    Die("cuBLAS with CUDA_R_16F is not part of the harness");
  }
  const bool pedantic = types.compute == CUBLAS_COMPUTE_32F_PEDANTIC;
  const bool listed = are(CUDA_R_32F, CUDA_R_32F) ||
                      (are(CUDA_R_16BF, CUDA_R_16BF) && !(grouped && pedantic)) ||
                      (are(CUDA_R_16BF, CUDA_R_32F) && !grouped);
  return listed ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t CheckShape(const BlasShape& shape) {
  const bool valid = IsOperation(shape.transa) && IsOperation(shape.transb) && shape.m >= 0 &&
                     shape.n >= 0 && shape.k >= 0 &&
                     shape.lda >= std::max(1, shape.transa == CUBLAS_OP_N ? shape.m : shape.k) &&
                     shape.ldb >= std::max(1, shape.transb == CUBLAS_OP_N ? shape.k : shape.n) &&
                     shape.ldc >= std::max(1, shape.m);
  return valid ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

void CheckMatrices(const char* call, int index, const BlasTypes& types, const BlasShape& shape,
                   const void* a, const void* b, const void* c) {
  if (shape.m == 0 || shape.n == 0) {
    return;
  }
  const std::string name = index < 0 ? call : absl::StrCat(call, ": product ", index);
  if (shape.k > 0) {
    CheckMatrix(name, StoredA(types, shape, a), AlignmentOf(types.a, shape.k));
    CheckMatrix(name, StoredB(types, shape, b), AlignmentOf(types.b, shape.k));
  }
  CheckMatrix(name, {"C", c, types.c, shape.m, shape.n, shape.ldc}, BytesOf(types.c));
}

void Multiply(const BlasTypes& types, const BlasShape& shape, const void* a, const void* b,
              void* c) {
  const auto [transa, transb, m, n, k, lda, ldb, ldc, alpha, beta] = shape;
  const std::vector<float> left = Unpacked(StoredA(types, shape, a), transa == CUBLAS_OP_N, k, m);
  const std::vector<float> right = Unpacked(StoredB(types, shape, b), transb != CUBLAS_OP_N, k, n);
  // So many sums of every so-many-th product, added up last.
  const size_t parts = 1 + (static_cast<size_t>(m) * 5 + static_cast<size_t>(n) * 3) % 4;
  const size_t rows = static_cast<size_t>(m);
  for (size_t column = 0; column < static_cast<size_t>(n); ++column) {
    std::vector<float> sums(parts * rows, 0.0f);
    for (size_t i = 0; i < static_cast<size_t>(k); ++i) {
      float* const sum = &sums[i % parts * rows];
      const float* const from = &left[i * rows];
      const float factor = right[i * static_cast<size_t>(n) + column];
      for (size_t row = 0; row < rows; ++row) {
        sum[row] += from[row] * factor;
      }
    }
    for (size_t row = 0; row < rows; ++row) {
      float value = 0.0f;
      for (size_t part = 0; part < parts; ++part) {
        value += sums[part * rows + row];
      }
      value *= alpha;
      const size_t index = column * static_cast<size_t>(ldc) + row;
      // With beta 0, C need not hold numbers.
      value += beta == 0.0f ? 0.0f : beta * Load(c, types.c, index);
      Store(c, types.c, index, value);
    }
  }
}

}  // namespace expertmesh::cuda_host
