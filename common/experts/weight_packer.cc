#include "common/experts/weight_packer.h"

#include <algorithm>
#include <cstring>

#include "common/experts/elementwise.h"
#include "common/tensor/decode_matrix.h"

namespace expertmesh {
namespace {

static_assert(kInterleave == kInnerStep && 2 * kInterleave == kColumnStep);

// Rows [row, row + count) of `view`, those that it has, to [count, inner] at `target`; the rest
// zero.
void Stage(const MatrixView& view, size_t row, size_t count, const MatmulShape& shape,
           uint8_t* target) {
  const size_t element = BytesOf(shape.dtype());
  const size_t row_bytes = shape.inner() * element;
  const size_t filled = row < view.rows ? std::min(count, view.rows - row) : 0;
  DecodeTile(view, row, filled, 0, view.cols, shape.dtype(), target, shape.inner());
  if (view.cols < shape.inner()) {
    for (size_t r = 0; r < filled; ++r) {
      std::memset(target + r * row_bytes + view.cols * element, 0,
                  (shape.inner() - view.cols) * element);
    }
  }
  std::memset(target + filled * row_bytes, 0, (count - filled) * row_bytes);
}

}  // namespace

absl::Status WeightPacker::PackUp(const ExpertSizes& sizes, const ExpertWeights& weights,
                                  const MatmulShape& shape, const MatmulShape::Split& split,
                                  size_t panel, uint8_t* packed) {
  const size_t row_bytes = shape.inner() * BytesOf(shape.dtype());
  staging_.Resize(split.columns * row_bytes);
  const size_t first = panel * split.columns;
  for (size_t column = first; column < first + split.columns; column += kInterleave) {
    const bool is_gate = sizes.gated && column / kInterleave % 2 == 0;
    const size_t row = column / (sizes.turns() * kInterleave) * kInterleave;
    Stage(is_gate ? weights.gate : weights.up, row, kInterleave, shape,
          staging_.data() + (column - first) * row_bytes);
  }
  return shape.PackPanel(split, staging_.data(), packed);
}

absl::Status WeightPacker::PackDown(const ExpertWeights& weights, const MatmulShape& shape,
                                    const MatmulShape::Split& split, size_t panel,
                                    uint8_t* packed) {
  staging_.Resize(split.columns * shape.inner() * BytesOf(shape.dtype()));
  Stage(weights.down, panel * split.columns, split.columns, shape, staging_.data());
  return shape.PackPanel(split, staging_.data(), packed);
}

}  // namespace expertmesh
