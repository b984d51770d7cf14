#include "common/tensor/matrix_slice.h"

#include <algorithm>
#include <cstring>

#include "common/base/check.h"
#include "common/tensor/matrix_tile.h"

namespace expertmesh {
namespace {

const uint8_t* At(const MatrixView& view, size_t element) {
  const size_t bits = element * BitsOf(view.dtype);
  EXPERTMESH_CHECK(bits % 8 == 0);
  return view.data + bits / 8;
}

size_t RowBytes(const MatrixView& view) { return (view.cols * BitsOf(view.dtype) + 7) / 8; }

size_t BlockRows(const MatrixView& view) {
  return (view.scales.row_offset + view.rows + view.scales.block_rows - 1) / view.scales.block_rows;
}

size_t ScaleRowBytes(const MatrixView& view) {
  const size_t blocks =
      (view.scales.col_offset + view.cols + view.scales.block_cols - 1) / view.scales.block_cols;
  return blocks * BytesOf(view.scales.dtype);
}

void CopyStrided(const MatrixView& view, uint8_t* target, size_t row_bytes) {
  const size_t bytes = BytesOf(view.dtype);
  uint8_t tile[kTile * kTile * sizeof(float)];
  for (size_t row = 0; row < view.rows; row += kTile) {
    const size_t rows = std::min(kTile, view.rows - row);
    for (size_t column = 0; column < view.cols; column += kTile) {
      const size_t cols = std::min(kTile, view.cols - column);
      CollectTile(view, row, rows, column, cols, tile);
      for (size_t r = 0; r < rows; ++r) {
        std::memcpy(target + (row + r) * row_bytes + column * bytes, tile + r * kTile * bytes,
                    cols * bytes);
      }
    }
  }
}

}  // namespace

MatrixView RowsOf(const MatrixView& view, size_t begin, size_t count) {
  EXPERTMESH_CHECK(begin + count <= view.rows);
  MatrixView part = view;
  part.data = At(view, begin * view.row_stride);
  part.rows = count;
  if (!view.scales.empty()) {
    const size_t first = begin + view.scales.row_offset;
    part.scales.row_offset = first % view.scales.block_rows;
    part.scales.data +=
        first / view.scales.block_rows * view.scales.row_stride * BytesOf(view.scales.dtype);
  }
  return part;
}

MatrixView ColumnsOf(const MatrixView& view, size_t begin, size_t count) {
  EXPERTMESH_CHECK(begin + count <= view.cols);
  MatrixView part = view;
  part.data = At(view, begin * view.col_stride);
  part.cols = count;
  if (!view.scales.empty()) {
    const size_t first = begin + view.scales.col_offset;
    part.scales.col_offset = first % view.scales.block_cols;
    part.scales.data += first / view.scales.block_cols * BytesOf(view.scales.dtype);
  }
  return part;
}

uint64_t StoredBytes(const MatrixView& view) {
  if (view.empty()) {
    return 0;
  }
  const BlockScales& scales = view.scales;
  const uint64_t values = uint64_t{view.rows} * RowBytes(view);
  return scales.empty() ? values : values + BlockRows(view) * ScaleRowBytes(view);
}

MatrixView CopyStored(const MatrixView& view, uint8_t* target) {
  if (view.empty()) {
    return {};
  }
  const size_t row_bytes = RowBytes(view);
  MatrixView copy = view;
  copy.data = target;
  copy.row_stride = row_bytes * 8 / BitsOf(view.dtype);
  copy.col_stride = 1;
  if (view.col_stride == 1) {
    for (size_t r = 0; r < view.rows; ++r, target += row_bytes) {
      std::memcpy(target, At(view, r * view.row_stride), row_bytes);
    }
  } else {
    CopyStrided(view, target, row_bytes);
    target += view.rows * row_bytes;
  }
  if (!view.scales.empty()) {
    const size_t scale_bytes = ScaleRowBytes(view);
    copy.scales.data = target;
    copy.scales.row_stride = scale_bytes / BytesOf(view.scales.dtype);
    for (size_t r = 0; r < BlockRows(view); ++r, target += scale_bytes) {
      std::memcpy(target,
                  view.scales.data + r * view.scales.row_stride * BytesOf(view.scales.dtype),
                  scale_bytes);
    }
  }
  return copy;
}

}  // namespace expertmesh
