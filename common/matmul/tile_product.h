// Products of bf16 matrices on AMX tiles, for packed weights that come from memory.
//
// An expert's weights are used by few rows of a batch, so their product is as fast as memory is
// read. oneDNN 2.6 reads it at 0.4 to 0.8 of that: it multiplies, then waits for the next weights.
// Here each step asks for the weights of 8 KiB later before it multiplies its own.
//
// A row's sum runs over the inner dimension in order, whatever rows are multiplied with it: no bit
// depends on them.
//
// The gate's weights stay in the cache; there tiles take a quarter to a tenth of the time of
// float32 vectors.
#ifndef EXPERTMESH_COMMON_MATMUL_TILE_PRODUCT_H_
#define EXPERTMESH_COMMON_MATMUL_TILE_PRODUCT_H_

#include <cstddef>
#include <cstdint>

namespace expertmesh::matmul {

// Columns whose products lie together.
inline constexpr size_t kStripColumns = 64;
// Elements of the inner dimension that one step multiplies.
inline constexpr size_t kTileInner = 32;

inline size_t RoundUp(size_t value, size_t step) { return (value + step - 1) / step * step; }

// True on CPUs with AMX bf16 whose kernel lets this process use it; the first call asks for that.
bool TilesAvailable();

// Bytes of [columns, inner] weights, packed.
size_t PackedTileBytes(size_t columns, size_t inner);

// Packs `weights`, [columns, inner] bf16 row-major, for TileProduct: PackedTileBytes() of them.
// Both sizes are padded with zeros to multiples of what TileProduct wants.
void PackTiles(const uint16_t* weights, size_t columns, size_t inner, uint8_t* packed);

// y = x * weights. Only where TilesAvailable().
struct TileProduct {
  // [rows, inner] bf16, `x_row_bytes` from row to row.
  const uint8_t* x;
  size_t x_row_bytes;
  size_t rows;
  // Multiples of kTileInner and kStripColumns.
  size_t inner;
  size_t columns;
  // Strip after strip: [inner / 2, kStripColumns, 2] bf16 each (oneDNN calls it BA16a64b2a).
  const uint8_t* weights;
  // Strip after strip: [rows, kStripColumns] float32 each.
  float* y;

  void Run() const;
};

}  // namespace expertmesh::matmul

#endif  // EXPERTMESH_COMMON_MATMUL_TILE_PRODUCT_H_
