// Products of bf16 matrices on AMX tiles, for packed weights that come from memory.
//
// An expert's weights are used by few rows of a batch, so their product is as fast as memory is
// read. oneDNN 2.6 reads it at 0.4 to 0.8 of that: it multiplies, then waits for the next weights.
// Here each step asks for the weights of 8 KiB later before it multiplies its own
// (cpu_backend_benchmark has both: run it again with ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16).
//
// A row's sum runs over the inner dimension in order, whatever rows are multiplied with it: no bit
// depends on them.
//
// Private to common/experts.
#ifndef EXPERTMESH_COMMON_EXPERTS_TILE_PRODUCT_H_
#define EXPERTMESH_COMMON_EXPERTS_TILE_PRODUCT_H_

#include <cstddef>
#include <cstdint>

namespace expertmesh {

// Columns whose products lie together.
inline constexpr size_t kStripColumns = 64;
// Elements of the inner dimension that one step multiplies.
inline constexpr size_t kTileInner = 32;

// True on CPUs with AMX bf16 whose kernel lets this process use it; the first call asks for that.
// ONEDNN_MAX_CPU_ISA holds here too: whoever keeps oneDNN from AMX keeps this code from it.
bool TilesAvailable();

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

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_EXPERTS_TILE_PRODUCT_H_
