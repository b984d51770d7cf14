// Matrix products with packed weights: the bits of a row depend neither on how many rows are
// multiplied with it nor on how the columns are divided over threads. bf16 on a machine with AMX:
// by tile_product.h; all else: by panel_product.h. Both sum in a fixed order, which libraries do
// not promise (oneDNN 2.6 was as fast and did not keep it: findings/onednn_rows.sh).
//
// Private to common/experts.
#ifndef EXPERTMESH_COMMON_EXPERTS_MATMUL_H_
#define EXPERTMESH_COMMON_EXPERTS_MATMUL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/matmul/tile_product.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/dtype.h"

namespace expertmesh::experts {

// Inner dimensions are padded with zeros to a multiple of kInnerStep, columns to kColumnStep.
inline constexpr size_t kInnerStep = matmul::kTileInner;
inline constexpr size_t kColumnStep = matmul::kStripColumns;
// Most rows of one product.
inline constexpr size_t kMaxRows = 256;

// How a weight matrix [inner, columns] lies packed, and how its columns can be divided. Immutable.
class MatmulShape {
 public:
  // `panels` equal parts of the columns.
  struct Split {
    size_t panels = 1;
    size_t columns = 0;
  };

  // `dtype` is kF32 or kBF16, `inner` and `columns` are padded sizes; `tiles`: whether bf16 goes to
  // tile_product.h.
  MatmulShape(Dtype dtype, size_t inner, size_t columns, bool tiles = matmul::TilesAvailable());

  Dtype dtype() const { return dtype_; }
  size_t inner() const { return inner_; }
  size_t columns() const { return columns_; }
  bool tiles() const { return tiles_; }
  // The packed matrix takes so many.
  size_t bytes() const { return inner_ * columns_ * BytesOf(dtype_); }
  // Ascending by panels; the first has one.
  const std::vector<Split>& splits() const { return splits_; }

  // A product's x: rows of so many bytes, of which the first inner() elements count.
  size_t x_row_bytes() const { return x_row_bytes_; }
  // A product's y: strip after strip of that many columns, [rows, columns] float32 each.
  size_t StripColumnsOf(const Split& split) const {
    return tiles_ ? matmul::kStripColumns : split.columns;
  }

  // Packs one panel of `split`: `source`, [split.columns, inner] row-major of dtype(), to `packed`
  // (PanelBytes(split) of them). A split of one panel gives the whole matrix, in which the panels
  // of any split follow each other.
  void PackPanel(const Split& split, const void* source, void* packed) const;
  size_t PanelBytes(const Split& split) const { return bytes() / split.panels; }

 private:
  Dtype dtype_;
  size_t inner_;
  size_t columns_;
  bool tiles_;
  size_t x_row_bytes_;
  std::vector<Split> splits_;
};

// Runs products, and keeps their working memory. One per thread.
class MatmulRunner {
 public:
  // y = x * a packed panel of `split`; x and y as MatmulShape tells.
  void Run(const MatmulShape& shape, const MatmulShape::Split& split, size_t rows, const uint8_t* x,
           const uint8_t* panel, float* y);

 private:
  AlignedBuffer widened_;
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_MATMUL_H_
