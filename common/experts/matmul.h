// Matrix products with packed weights, arranged so that the bits of a row do not depend on how many
// rows are multiplied with it, nor on how the columns are divided over threads. float32: by
// panel_product.h. bf16 on a machine with AMX: by tile_product.h. Both sum in a fixed order. Other
// bf16: by oneDNN, which alone does not promise that, and does not give it:
// - it may sum the inner dimension in blocks whose number depends on the rows, from about a
//   thousand elements on: weights are cut into chunks of at most 512 along the inner dimension,
//   each a product of its own, added in order in float32;
// - small products go to another kernel (rows * columns <= 256): Split::min_rows keeps clear of it;
// - where its layout does not let columns be divided, every product has kFixedRows.
//
// Private to common/experts.
#ifndef EXPERTMESH_COMMON_EXPERTS_MATMUL_H_
#define EXPERTMESH_COMMON_EXPERTS_MATMUL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/matmul/tile_product.h"
#include "common/tensor/dtype.h"

namespace expertmesh {

// Inner dimensions are padded with zeros to a multiple of kInnerStep, columns to kColumnStep.
inline constexpr size_t kInnerStep = kTileInner;
inline constexpr size_t kColumnStep = kStripColumns;
// Most rows of one product.
inline constexpr size_t kMaxRows = 256;
inline constexpr size_t kFixedRows = 16;

// What multiplies.
enum class MatmulKernel { kPanels, kTiles, kOneDnn };

// True when this machine multiplies bf16 by something better than oneDNN's reference code.
bool MatmulSupportsBF16();

// How a weight matrix [inner, columns] lies packed, and how its columns can be divided. Immutable.
class MatmulShape {
 public:
  // Part of the inner dimension, packed by itself.
  struct Chunk {
    size_t begin = 0;
    size_t inner = 0;
    size_t offset = 0;  // Of its packed bytes.
    // Of a product's x: from row to row, and before this chunk per row.
    size_t x_row_bytes = 0;
    size_t x_begin = 0;
    dnnl::memory::desc packed;  // But for panels, which oneDNN does not know.
  };
  // `panels` equal parts of the columns.
  struct Split {
    size_t panels = 1;
    size_t columns = 0;
    // Fewest rows whose product comes out as one of many rows would.
    size_t min_rows = 1;
  };

  // `inner` and `columns` are padded sizes; `tiles`: whether bf16 may go to tile_product.h.
  // INTERNAL when oneDNN refuses the product.
  static absl::StatusOr<std::shared_ptr<const MatmulShape>> Create(DType dtype, size_t inner,
                                                                   size_t columns,
                                                                   bool tiles = TilesAvailable());

  DType dtype() const { return dtype_; }
  size_t inner() const { return inner_; }
  size_t columns() const { return columns_; }
  size_t bytes() const { return bytes_; }
  MatmulKernel kernel() const { return kernel_; }
  const std::vector<Chunk>& chunks() const { return chunks_; }
  // Ascending by panels; the first has one.
  const std::vector<Split>& splits() const { return splits_; }
  size_t max_rows() const { return fixed_rows_ ? kFixedRows : kMaxRows; }

  // Rows of the product that `count` rows take part in; those beyond `count` must be zero.
  size_t PaddedRows(const Split& split, size_t count) const;
  // A product's x: chunk after chunk, `rows` rows of x_row_bytes each, of which the first
  // chunk.inner elements count.
  size_t XBytes(size_t rows) const {
    return rows * (chunks_.back().x_begin + chunks_.back().x_row_bytes);
  }
  size_t XOffset(const Chunk& chunk, size_t rows, size_t row) const {
    return rows * chunk.x_begin + row * chunk.x_row_bytes;
  }
  // A product's y: strip after strip of that many columns, [rows, columns] float32 each.
  size_t StripColumnsOf(const Split& split) const {
    return kernel_ == MatmulKernel::kTiles ? kStripColumns : split.columns;
  }

  // Packs one panel of `split`: `source`, [split.columns, inner] row-major of dtype(), to `packed`
  // (PanelBytes(split) of them). A split of one panel gives the whole matrix.
  absl::Status PackPanel(const Split& split, const void* source, void* packed) const;
  size_t PanelBytes(const Split& split) const { return bytes_ / split.panels; }

  // Where panel `panel` of `split` starts in a chunk of the packed matrix.
  size_t PanelOffset(const Chunk& chunk, const Split& split, size_t panel) const {
    return chunk.offset + panel * split.columns * chunk.inner * BytesOf(dtype_);
  }
  // Where the chunk starts in a panel that was packed alone.
  size_t ChunkOffset(const Chunk& chunk, const Split& split) const {
    return chunk.offset / split.panels;
  }

 private:
  MatmulShape() = default;
  void AddChunk(size_t begin, size_t inner);
  void AddSplits();
  size_t MinRows(size_t columns) const;

  DType dtype_ = DType::kF32;
  size_t inner_ = 0;
  size_t columns_ = 0;
  size_t bytes_ = 0;
  bool fixed_rows_ = false;
  MatmulKernel kernel_ = MatmulKernel::kPanels;
  std::vector<Chunk> chunks_;
  std::vector<Split> splits_;
};

// Runs products and keeps their kernels. One per thread.
class MatmulRunner {
 public:
  MatmulRunner();

  // y = x * panel `panel` of the packed matrix; x and y as MatmulShape tells.
  absl::Status Run(const MatmulShape& shape, const MatmulShape::Split& split, size_t panel,
                   size_t rows, const uint8_t* x, const uint8_t* packed, float* y);
  // The same with a panel that was packed alone.
  absl::Status RunPanel(const MatmulShape& shape, const MatmulShape::Split& split, size_t rows,
                        const uint8_t* x, const uint8_t* packed_panel, float* y);

 private:
  struct Kernel {
    dnnl::matmul matmul;
    dnnl::memory x;
    dnnl::memory weights;
    dnnl::memory y;
    dnnl::memory scratchpad;
  };
  // inner, columns, rows, adds to y.
  using Key = std::tuple<size_t, size_t, size_t, bool>;

  Kernel& Get(const MatmulShape& shape, const MatmulShape::Chunk& chunk, size_t columns,
              size_t rows, bool add);
  // Throws dnnl::error.
  absl::Status Multiply(const MatmulShape& shape, const MatmulShape::Chunk& chunk, size_t columns,
                        size_t rows, const uint8_t* x, const uint8_t* weights, float* y);

  dnnl::stream stream_;
  absl::flat_hash_map<Key, std::unique_ptr<Kernel>> kernels_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_EXPERTS_MATMUL_H_
