// Views of matrices owned by someone else.
#ifndef EXPERTMESH_COMMON_TENSOR_MATRIX_VIEW_H_
#define EXPERTMESH_COMMON_TENSOR_MATRIX_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "common/tensor/dtype.h"

namespace expertmesh {

// Scales of a matrix that is quantised in blocks: element (r, c) of the matrix stands for its value
// times scale (i, j) with i = (r + row_offset) / block_rows and j = (c + col_offset) / block_cols,
// which is at data + (i * row_stride + j) elements.
struct BlockScales {
  const uint8_t* data = nullptr;
  // IsScaleDtype. Of kF8E8M0 the value is 2^(byte - 127), 255 is NaN.
  Dtype dtype = Dtype::kF32;
  size_t block_rows = 1;
  size_t block_cols = 1;
  size_t row_stride = 0;
  // For a matrix that begins inside a block: rows and columns of that block before it.
  size_t row_offset = 0;
  size_t col_offset = 0;

  bool empty() const { return data == nullptr; }
};

inline bool IsScaleDtype(Dtype dtype) {
  return IsActivationDtype(dtype) || dtype == Dtype::kF8E8M0;
}

// A matrix [rows, cols] with any strides: a weight as it lies in a checkpoint, which may be a part
// of a fused tensor or stored transposed. Element (r, c) is at data + (r * row_stride + c *
// col_stride) elements. `data` need not be aligned. The owner of the memory must outlive the view.
//
// Types: an activation type; kF8E4M3; or kF4 (e2m1, two to a byte, the even column in the low half;
// row_stride is even and col_stride 1).
struct MatrixView {
  const uint8_t* data = nullptr;
  Dtype dtype = Dtype::kF32;
  size_t rows = 0;
  size_t cols = 0;
  size_t row_stride = 0;
  size_t col_stride = 1;
  BlockScales scales = {};

  // A packed row-major matrix.
  static MatrixView RowMajor(const void* data, Dtype dtype, size_t rows, size_t cols) {
    return {static_cast<const uint8_t*>(data), dtype, rows, cols, cols, 1, {}};
  }

  bool empty() const { return rows == 0 || cols == 0; }
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TENSOR_MATRIX_VIEW_H_
