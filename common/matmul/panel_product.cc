#include "common/matmul/panel_product.h"

#include "common/base/check.h"
#include "common/base/cpu_features.h"
#include "common/matmul/pack_columns.h"
#include "common/matmul/panel_dot.h"
#include "common/matmul/panel_loops.h"
#include "common/tensor/dtype.h"

// This file is compiled once per instruction set, by including itself.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/matmul/panel_product.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace expertmesh::matmul {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::CappedTag<float, kPanelColumns> kTag;
constexpr hn::Repartition<uint32_t, decltype(kTag)> kPairTag;
using Vector = hn::Vec<decltype(kTag)>;

constexpr size_t kLanes = hn::MaxLanes(kTag);

// What both kernels have in common.
struct Registers {
  static constexpr size_t kVectors = kPanelColumns / kLanes;
  static constexpr size_t kMaxSums = kLanes == 1 ? kVectors : kLanes == 16 ? 24 : 12;
  // AVX-512 covers several panels at once, since one would be too few sums to keep its multipliers
  // busy.
  static constexpr size_t kMaxRows =
      kMaxSums / kVectors / (kLanes == 16 ? panel_loops::kMaxPanels : 1);
};

template <size_t kRows, size_t kColumns>
HWY_INLINE void SetZero(Vector (&sums)[kRows][kColumns]) {
#pragma GCC unroll 16
  for (size_t row = 0; row < kRows; ++row) {
#pragma GCC unroll 16
    for (size_t column = 0; column < kColumns; ++column) {
      sums[row][column] = hn::Zero(kTag);
    }
  }
}

template <size_t kRows, size_t kColumns>
HWY_INLINE void MultiplyAdd(const float* x, size_t x_stride, const Vector (&weights)[kColumns],
                            Vector (&sums)[kRows][kColumns]) {
#pragma GCC unroll 16
  for (size_t row = 0; row < kRows; ++row) {
    const Vector value = hn::Set(kTag, x[row * x_stride]);
#pragma GCC unroll 16
    for (size_t column = 0; column < kColumns; ++column) {
      sums[row][column] = hn::MulAdd(value, weights[column], sums[row][column]);
    }
  }
}

template <size_t kRows, size_t kColumns>
HWY_INLINE void Finish(const Vector (&sums)[kRows][kColumns], bool first, float* y,
                       size_t y_stride) {
#pragma GCC unroll 16
  for (size_t row = 0; row < kRows; ++row) {
#pragma GCC unroll 16
    for (size_t column = 0; column < kColumns; ++column) {
      float* const to = y + row * y_stride + column * kLanes;
      Vector sum = sums[row][column];
      if (!first) {
        sum = hn::Add(hn::LoadU(kTag, to), sum);
      }
      hn::StoreU(sum, kTag, to);
    }
  }
}

// Where vector `column` of a tile's weights lies; `panel` elements from panel to panel.
constexpr size_t PlaceOf(size_t column, size_t panel) {
  return column / Registers::kVectors * panel + column % Registers::kVectors * kLanes;
}

// Two bf16 of the inner dimension lie in each 32 bits: the first, and the second.
template <typename Pairs>
HWY_INLINE Vector FirstOf(Pairs pairs) {
  return hn::BitCast(kTag, hn::ShiftLeft<16>(pairs));
}
template <typename Pairs>
HWY_INLINE Vector SecondOf(Pairs pairs) {
  return hn::BitCast(kTag, hn::And(pairs, hn::Set(kPairTag, 0xffff0000u)));
}

struct FloatKernel : Registers {
  using X = float;
  using Weight = float;

  template <size_t kRows, size_t kPanels>
  static HWY_NOINLINE void Tile(const panel_loops::Job<X, Weight>& job,
                                const panel_loops::Part<X, Weight>& part) {
    Vector sums[kRows][kPanels * kVectors];
    SetZero(sums);
    const size_t panel = job.panel_elements();
    const float* weights = part.weights;
    for (size_t k = 0; k < part.count; ++k, weights += kPanelColumns) {
      Vector w[kPanels * kVectors];
#pragma GCC unroll 16
      for (size_t column = 0; column < kPanels * kVectors; ++column) {
        w[column] = hn::LoadU(kTag, weights + PlaceOf(column, panel));
      }
      MultiplyAdd(part.x + k, job.x_stride, w, sums);
    }
    Finish(sums, part.first, part.y, job.y_stride);
  }
};

// Rows in float32, bf16 weights.
struct WidenKernel : Registers {
  using X = float;
  using Weight = uint16_t;

  template <size_t kRows, size_t kPanels>
  static HWY_NOINLINE void Tile(const panel_loops::Job<X, Weight>& job,
                                const panel_loops::Part<X, Weight>& part) {
    Vector sums[kRows][kPanels * kVectors];
    SetZero(sums);
    const size_t panel = job.panel_elements() / 2;
    const auto* weights = reinterpret_cast<const uint32_t*>(part.weights);
    for (size_t k = 0; k < part.count; k += 2, weights += kPanelColumns) {
      Vector w[kPanels * kVectors];
#pragma GCC unroll 16
      for (size_t column = 0; column < kPanels * kVectors; ++column) {
        w[column] = FirstOf(hn::LoadU(kPairTag, weights + PlaceOf(column, panel)));
      }
      MultiplyAdd(part.x + k, job.x_stride, w, sums);
#pragma GCC unroll 16
      for (size_t column = 0; column < kPanels * kVectors; ++column) {
        w[column] = SecondOf(hn::LoadU(kPairTag, weights + PlaceOf(column, panel)));
      }
      MultiplyAdd(part.x + k + 1, job.x_stride, w, sums);
    }
    Finish(sums, part.first, part.y, job.y_stride);
  }
};

void RunFloat(const panel_loops::Job<float, float>& job) { panel_loops::RunJob<FloatKernel>(job); }

// From so many rows on, weights are widened once for all of them and not in each tile.
constexpr size_t kManyRows = 4 * Registers::kMaxRows;
// Panels that a tile of many rows covers.
constexpr size_t kManyPanels = panel_loops::PanelsFor<FloatKernel>(Registers::kMaxRows);

// `count` of the inner dimension of one panel, in float32.
void Widen(const uint16_t* weights, size_t count, float* widened) {
  const auto* pairs_of = reinterpret_cast<const uint32_t*>(weights);
  for (size_t k = 0; k < count; k += 2, pairs_of += kPanelColumns) {
    for (size_t column = 0; column < kPanelColumns; column += kLanes, widened += kLanes) {
      const auto pairs = hn::LoadU(kPairTag, pairs_of + column);
      hn::StoreU(FirstOf(pairs), kTag, widened);
      hn::StoreU(SecondOf(pairs), kTag, widened + kPanelColumns);
    }
    widened += kPanelColumns;
  }
}

// The bits of WidenKernel.
void RunManyRows(const panel_loops::Job<float, uint16_t>& job) {
  alignas(AlignedBuffer::kAlignment) float widened[kManyPanels * panel_loops::kRun * kPanelColumns];
  const size_t panels = job.columns / kPanelColumns;
  for (size_t first = 0; first < panels; first += kManyPanels) {
    const size_t together = std::min(kManyPanels, panels - first);
    for (size_t k = 0; k < job.inner; k += panel_loops::kRun) {
      const size_t count = std::min(panel_loops::kRun, job.inner - k);
      for (size_t panel = 0; panel < together; ++panel) {
        Widen(job.weights + (first + panel) * job.panel_elements() + k * kPanelColumns, count,
              widened + panel * count * kPanelColumns);
      }
      panel_loops::RunJob<FloatKernel>(
          {job.x + k, job.x_stride, job.rows, count, together * kPanelColumns, widened,
           job.y + first * kPanelColumns, job.y_stride},
          /*add=*/k > 0);
    }
  }
}

void RunWidened(const panel_loops::Job<float, uint16_t>& job) {
  if (job.rows < kManyRows) {
    panel_loops::RunJob<WidenKernel>(job);
  } else {
    RunManyRows(job);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace expertmesh::matmul
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace expertmesh::matmul {
namespace {

HWY_EXPORT(RunFloat);
HWY_EXPORT(RunWidened);

// Tells Highway, which asks the CPU itself, what it may use. Its better targets have lower bits.
bool LimitHighway() {
  if (!CpuHasAvx2()) {
    hwy::DisableTargets(HWY_AVX2 | (HWY_AVX2 - 1));
  } else if (!CpuHasAvx512()) {
    hwy::DisableTargets(HWY_AVX2 - 1);
  }
  return true;
}

void LimitHighwayOnce() {
  static const bool limited = LimitHighway();
  static_cast<void>(limited);
}

}  // namespace

size_t PackedPanelElements(size_t columns, size_t inner) {
  return (columns + kPanelColumns - 1) / kPanelColumns * kPanelColumns * inner;
}

void PackPanels(const float* weights, size_t columns, size_t inner, size_t stride, float* packed) {
  PackColumns<kPanelColumns, 1>(weights, columns, inner, stride, inner, packed);
}

void PackPanels(const uint16_t* weights, size_t columns, size_t inner, size_t stride,
                uint16_t* packed) {
  EXPERTMESH_CHECK(inner % 2 == 0);
  PackColumns<kPanelColumns, 2>(weights, columns, inner, stride, inner, packed);
}

void RunPanels(const PanelProduct<float>& product) {
  LimitHighwayOnce();
  HWY_DYNAMIC_DISPATCH(RunFloat)
  ({product.x, product.x_stride, product.rows, product.inner, product.columns, product.weights,
    product.y, product.y_stride});
}

void RunPanels(const PanelProduct<uint16_t>& product, AlignedBuffer* widened) {
  EXPERTMESH_CHECK(product.inner % 2 == 0);
  if (DotAvailable()) {
    RunDot(product);
    return;
  }
  LimitHighwayOnce();
  widened->Resize(product.rows * product.inner * sizeof(float));
  float* const x = widened->as<float>();
  for (size_t row = 0; row < product.rows; ++row) {
    ConvertElements(Dtype::kBF16, product.x + row * product.x_stride, Dtype::kF32,
                    x + row * product.inner, product.inner);
  }
  HWY_DYNAMIC_DISPATCH(RunWidened)
  ({x, product.inner, product.rows, product.inner, product.columns, product.weights, product.y,
    product.y_stride});
}

}  // namespace expertmesh::matmul
#endif  // HWY_ONCE
