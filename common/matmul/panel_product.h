// Products of float32 matrices in one fixed order of sums, for packed weights.
//
// Every output is summed alike, whatever rows and columns are computed with it:
//   for each run of 256 of the inner dimension: sum = 0; for k ascending: sum = x[k] * w[k] + sum;
//   y = the first sum, then y + each further sum.
// No vector ever runs over k, so a row's bits depend neither on the other rows nor on the width of
// vectors. Libraries do not promise that, and most do not give it. Short runs keep the rounding
// error at that of a library.
//
// With AVX2 and AVX-512 a step is a fused multiply-add; with SSE4.1, which has none, it is a
// product and a sum, each rounded: such a CPU has other last bits than the others.
#ifndef EXPERTMESH_COMMON_MATMUL_PANEL_PRODUCT_H_
#define EXPERTMESH_COMMON_MATMUL_PANEL_PRODUCT_H_

#include <cstddef>
#include <cstdint>

namespace expertmesh {

// Columns whose weights lie together.
inline constexpr size_t kPanelColumns = 16;

// Floats of [columns, inner] weights, packed.
size_t PackedPanelFloats(size_t columns, size_t inner);

// Packs `weights`, [columns, inner] row-major, `stride` floats from column to column, for
// PanelProduct: PackedPanelFloats() of them. The last panel is padded with zero columns.
void PackPanels(const float* weights, size_t columns, size_t inner, size_t stride, float* packed);

// y = x * weights, on the calling thread.
struct PanelProduct {
  // [rows, inner], `x_stride` floats from row to row.
  const float* x;
  size_t x_stride;
  size_t rows;
  size_t inner;    // At least 1.
  size_t columns;  // A multiple of kPanelColumns.
  // Panel after panel: [inner, kPanelColumns] each.
  const float* weights;
  // [rows, columns], `y_stride` floats from row to row.
  float* y;
  size_t y_stride;

  void Run() const;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_MATMUL_PANEL_PRODUCT_H_
