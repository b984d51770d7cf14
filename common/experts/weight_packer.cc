#include "common/experts/weight_packer.h"

#include <algorithm>
#include <cstring>

#include "common/experts/elementwise.h"
#include "common/tensor/decode_matrix.h"

namespace expertmesh::experts {
namespace {

static_assert(kInterleave == kInnerStep && 2 * kInterleave == kColumnStep);

// Columns that are read together from matrices whose columns are not side by side: few enough for
// their pages to stay known to the machine while rows go by.
constexpr size_t kStridedColumns = 64;

size_t ColumnsTogether(const MatrixView& view, size_t inner) {
  return view.col_stride == 1 ? inner : kStridedColumns;
}

// Rows [row, row + count) and columns [col, col + cols) of `view` to [count, cols] of a matrix with
// rows of `inner` elements; zero where `view` has none.
void DecodePadded(const MatrixView& view, size_t row, size_t count, size_t col, size_t cols,
                  Dtype dtype, size_t inner, uint8_t* target) {
  const size_t element = BytesOf(dtype);
  const size_t filled_rows = row < view.rows ? std::min(count, view.rows - row) : 0;
  const size_t filled_cols = col < view.cols ? std::min(cols, view.cols - col) : 0;
  if (filled_rows > 0 && filled_cols > 0) {
    DecodeTile(view, row, filled_rows, col, filled_cols, dtype, target, inner);
  }
  for (size_t r = 0; r < count; ++r) {
    const size_t filled = r < filled_rows ? filled_cols : 0;
    std::memset(target + (r * inner + filled) * element, 0, (cols - filled) * element);
  }
}

}  // namespace

void WeightPacker::PackUp(const ExpertSizes& sizes, const ExpertWeights& weights,
                          const MatmulShape& shape, const MatmulShape::Split& split, size_t panel,
                          uint8_t* packed) {
  const size_t element = BytesOf(shape.dtype());
  const size_t row_bytes = shape.inner() * element;
  staging_.Resize(split.columns * row_bytes);
  const size_t first = panel * split.columns;
  const size_t together = ColumnsTogether(weights.up, shape.inner());
  for (size_t col = 0; col < shape.inner(); col += together) {
    const size_t cols = std::min(together, shape.inner() - col);
    for (size_t column = first; column < first + split.columns; column += kInterleave) {
      const bool is_gate = sizes.gated && column / kInterleave % 2 == 0;
      const size_t row = column / (sizes.turns() * kInterleave) * kInterleave;
      DecodePadded(is_gate ? weights.gate : weights.up, row, kInterleave, col, cols, shape.dtype(),
                   shape.inner(), staging_.data() + (column - first) * row_bytes + col * element);
    }
  }
  shape.PackPanel(split, staging_.data(), packed);
}

void WeightPacker::PackDown(const ExpertWeights& weights, const MatmulShape& shape,
                            const MatmulShape::Split& split, size_t panel, uint8_t* packed) {
  staging_.Resize(split.columns * shape.inner() * BytesOf(shape.dtype()));
  DecodePadded(weights.down, panel * split.columns, split.columns, 0, shape.inner(), shape.dtype(),
               shape.inner(), staging_.data());
  shape.PackPanel(split, staging_.data(), packed);
}

}  // namespace expertmesh::experts
