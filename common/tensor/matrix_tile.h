// Small tiles of matrices with any strides. Private to common/tensor.
#ifndef EXPERTMESH_COMMON_TENSOR_MATRIX_TILE_H_
#define EXPERTMESH_COMMON_TENSOR_MATRIX_TILE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/tensor/matrix_view.h"

namespace expertmesh {

inline constexpr size_t kTile = 32;

template <size_t kBytes>
void CollectElements(const uint8_t* source, size_t row_stride, size_t col_stride, size_t rows,
                     size_t cols, uint8_t* tile) {
  for (size_t c = 0; c < cols; ++c) {
    const uint8_t* from = source + c * col_stride * kBytes;
    for (size_t r = 0; r < rows; ++r, from += row_stride * kBytes) {
      std::memcpy(tile + (r * kTile + c) * kBytes, from, kBytes);
    }
  }
}

// Elements [row, row + rows) x [column, column + cols) of `view`, whose type is whole bytes, to
// `tile`, whose rows are kTile elements long. At most kTile of each.
inline void CollectTile(const MatrixView& view, size_t row, size_t rows, size_t column, size_t cols,
                        uint8_t* tile) {
  const size_t bytes = BytesOf(view.dtype);
  const auto collect = bytes == 1   ? CollectElements<1>
                       : bytes == 2 ? CollectElements<2>
                                    : CollectElements<4>;
  collect(view.data + (row * view.row_stride + column * view.col_stride) * bytes, view.row_stride,
          view.col_stride, rows, cols, tile);
}

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TENSOR_MATRIX_TILE_H_
