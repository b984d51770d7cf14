#include "common/matmul/panel_dot.h"

#include "common/base/check.h"
#include "common/base/cpu_features.h"
#include "common/matmul/panel_loops.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

namespace expertmesh::matmul {
namespace {

#define EXPERTMESH_DOT __attribute__((target("avx512f,avx512bf16"), noinline))

// Six rows of four panels: as many sums as the registers hold beside the weights.
struct DotKernel {
  using X = uint16_t;
  using Weight = uint16_t;
  static constexpr size_t kVectors = 1;
  static constexpr size_t kMaxSums = 24;
  static constexpr size_t kMaxRows = 6;

  template <size_t kRows, size_t kPanels>
  EXPERTMESH_DOT static void Tile(const panel_loops::Job<X, Weight>& job,
                                  const panel_loops::Part<X, Weight>& part) {
    __m512 sums[kRows][kPanels];
#pragma GCC unroll 16
    for (size_t row = 0; row < kRows; ++row) {
#pragma GCC unroll 16
      for (size_t panel = 0; panel < kPanels; ++panel) {
        sums[row][panel] = _mm512_setzero_ps();
      }
    }
    const uint16_t* weights = part.weights;
    const uint16_t* x = part.x;
    for (size_t k = 0; k < part.count; k += 2, weights += 2 * kPanelColumns, x += 2) {
      __m512i w[kPanels];
#pragma GCC unroll 16
      for (size_t panel = 0; panel < kPanels; ++panel) {
        w[panel] = _mm512_loadu_si512(weights + panel * job.panel_elements());
      }
#pragma GCC unroll 16
      for (size_t row = 0; row < kRows; ++row) {
        int32_t pair = 0;
        std::memcpy(&pair, x + row * job.x_stride, sizeof(pair));
        const __m512i values = _mm512_set1_epi32(pair);
#pragma GCC unroll 16
        for (size_t panel = 0; panel < kPanels; ++panel) {
          sums[row][panel] =
              _mm512_dpbf16_ps(sums[row][panel], (__m512bh)values, (__m512bh)w[panel]);
        }
      }
    }
#pragma GCC unroll 16
    for (size_t row = 0; row < kRows; ++row) {
#pragma GCC unroll 16
      for (size_t panel = 0; panel < kPanels; ++panel) {
        float* const to = part.y + row * job.y_stride + panel * kPanelColumns;
        const __m512 sum = sums[row][panel];
        _mm512_storeu_ps(to, part.first ? sum : _mm512_add_ps(_mm512_loadu_ps(to), sum));
      }
    }
  }
};

}  // namespace

bool DotAvailable() { return UsableCpuIsa() >= CpuIsa::kAvx512BF16; }

void RunDot(const PanelProduct<uint16_t>& product) {
  EXPERTMESH_CHECK(DotAvailable());
  panel_loops::RunJob<DotKernel>({product.x, product.x_stride, product.rows, product.inner,
                                  product.columns, product.weights, product.y, product.y_stride});
}

}  // namespace expertmesh::matmul

#else  // !defined(__x86_64__)

namespace expertmesh::matmul {

bool DotAvailable() { return false; }

void RunDot(const PanelProduct<uint16_t>&) { EXPERTMESH_CHECK(false); }

}  // namespace expertmesh::matmul

#endif  // defined(__x86_64__)
