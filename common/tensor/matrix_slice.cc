#include "common/tensor/matrix_slice.h"

#include "common/base/check.h"

namespace expertmesh {
namespace {

const uint8_t* At(const MatrixView& view, size_t element) {
  const size_t bits = element * BitsOf(view.dtype);
  EXPERTMESH_CHECK(bits % 8 == 0);
  return view.data + bits / 8;
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
  const uint64_t values = (uint64_t{view.rows} * view.cols * BitsOf(view.dtype) + 7) / 8;
  const BlockScales& scales = view.scales;
  if (scales.empty()) {
    return values;
  }
  return values + uint64_t{scales.BlockRows(view.rows)} * scales.BlockCols(view.cols) *
                      BytesOf(scales.dtype);
}

}  // namespace expertmesh
