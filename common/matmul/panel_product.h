// Products of float32 and of bf16 matrices in one fixed order of sums, for packed weights.
//
// Every output is summed alike, in float32, whatever rows and columns are computed with it:
//   for each run of 256 of the inner dimension: sum = 0; for k ascending: sum = x[k] * w[k] + sum;
//   y = the first sum, then y + each further sum.
// No vector ever runs over k, so a row's bits depend neither on the other rows nor on the width of
// vectors. Libraries do not promise that, and most do not give it. Short runs keep the rounding
// error at that of a library.
//
// With AVX2 and AVX-512 a step is a fused multiply-add; with SSE4.1, which has none, it is a
// product and a sum, each rounded: such a CPU has other last bits than the others. bf16 gives the
// bits of the same values in float32, but with AVX512_BF16, whose instruction takes two k at once
// and denormal values for zero.
#ifndef EXPERTMESH_COMMON_MATMUL_PANEL_PRODUCT_H_
#define EXPERTMESH_COMMON_MATMUL_PANEL_PRODUCT_H_

#include <cstddef>
#include <cstdint>

#include "common/tensor/aligned_buffer.h"

namespace expertmesh::matmul {

// Columns whose weights lie together.
inline constexpr size_t kPanelColumns = 16;

// Elements of [columns, inner] weights, packed.
size_t PackedPanelElements(size_t columns, size_t inner);

// Packs `weights`, [columns, inner] row-major, `stride` elements from column to column, for a
// product: PackedPanelElements() of them. The last panel is padded with zero columns.
void PackPanels(const float* weights, size_t columns, size_t inner, size_t stride, float* packed);
// bf16; `inner` is even.
void PackPanels(const uint16_t* weights, size_t columns, size_t inner, size_t stride,
                uint16_t* packed);

// y = x * weights, on the calling thread. Element: float, or uint16_t for bf16.
template <typename Element>
struct PanelProduct {
  // [rows, inner], `x_stride` elements from row to row.
  const Element* x;
  size_t x_stride;
  size_t rows;
  size_t inner;    // At least 1; of bf16 even.
  size_t columns;  // A multiple of kPanelColumns.
  // Panel after panel: [inner, kPanelColumns] float32, [inner / 2, kPanelColumns, 2] bf16.
  const Element* weights;
  // [rows, columns], `y_stride` floats from row to row.
  float* y;
  size_t y_stride;
};

void RunPanels(const PanelProduct<float>& product);
// `widened`: memory for the rows in float32, on CPUs without AVX512_BF16.
void RunPanels(const PanelProduct<uint16_t>& product, AlignedBuffer* widened);

}  // namespace expertmesh::matmul

#endif  // EXPERTMESH_COMMON_MATMUL_PANEL_PRODUCT_H_
