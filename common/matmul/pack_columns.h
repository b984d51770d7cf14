// How products' weights are packed. Private to common/matmul.
#ifndef EXPERTMESH_COMMON_MATMUL_PACK_COLUMNS_H_
#define EXPERTMESH_COMMON_MATMUL_PACK_COLUMNS_H_

#include <algorithm>
#include <cstddef>

namespace expertmesh::matmul {

// `weights`, [columns, inner] row-major, `stride` elements from column to column, to groups of
// kColumns columns: [padded_inner / kTogether, kColumns, kTogether] each. What is beyond `columns`
// and `inner` is zero. padded_inner is a multiple of kTogether, and inner at most that.
template <size_t kColumns, size_t kTogether, typename Element>
void PackColumns(const Element* weights, size_t columns, size_t inner, size_t stride,
                 size_t padded_inner, Element* packed) {
  constexpr size_t kStep = kColumns * kTogether;
  for (size_t first = 0; first < columns; first += kColumns) {
    const size_t count = std::min(kColumns, columns - first);
    const Element* const from = weights + first * stride;
    size_t k = 0;
    for (; k + kTogether <= inner; k += kTogether, packed += kStep) {
      for (size_t column = 0; column < count; ++column) {
        std::copy_n(from + column * stride + k, kTogether, packed + column * kTogether);
      }
      std::fill(packed + count * kTogether, packed + kStep, Element{0});
    }
    for (; k < padded_inner; k += kTogether, packed += kStep) {
      std::fill_n(packed, kStep, Element{0});
      for (size_t column = 0; k < inner && column < count; ++column) {
        std::copy_n(from + column * stride + k, inner - k, packed + column * kTogether);
      }
    }
  }
}

}  // namespace expertmesh::matmul

#endif  // EXPERTMESH_COMMON_MATMUL_PACK_COLUMNS_H_
