#include "common/matmul/panel_product.h"

#include <algorithm>

#include "common/base/cpu_features.h"

// This file is compiled once per instruction set, by including itself.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/matmul/panel_product.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace expertmesh {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::CappedTag<float, kPanelColumns> kTag;
using Vector = hn::Vec<decltype(kTag)>;
// What the fixed order of sums says.
constexpr size_t kRun = 256;

constexpr size_t kLanes = hn::MaxLanes(kTag);
constexpr size_t kVectors = kPanelColumns / kLanes;  // Per panel.
// Sums that fit the registers, beside weights and one element of x.
constexpr size_t kMaxSums = kLanes == 1 ? kVectors : kLanes == 16 ? 24 : 12;
// Of one tile of sums. AVX-512 covers several panels at once, since one would be too few sums to
// keep its multipliers busy.
constexpr size_t kMaxPanels = 4;
constexpr size_t kMaxRows = kMaxSums / kVectors / (kLanes == 16 ? kMaxPanels : 1);

// Panels of a tile of `rows` rows: a power of two.
constexpr size_t PanelsFor(size_t rows) {
  size_t panels = kMaxPanels;
  while (panels > 1 && rows * panels * kVectors > kMaxSums) {
    panels /= 2;
  }
  return panels;
}

// `count` in as few equal parts as possible of at most `most`: their number.
size_t PartsOf(size_t count, size_t most) { return (count + most - 1) / most; }

// The part of a product that one tile of sums covers.
struct Part {
  const float* x;
  const float* weights;  // At the part's first k.
  size_t count;          // Of k, at most kRun.
  bool first;
  float* y;
};

template <size_t kRows, size_t kPanels>
HWY_NOINLINE void Tile(const PanelProduct& product, const Part& part) {
  constexpr size_t kColumns = kPanels * kVectors;
  Vector sums[kRows][kColumns];
#pragma GCC unroll 16
  for (size_t row = 0; row < kRows; ++row) {
#pragma GCC unroll 16
    for (size_t column = 0; column < kColumns; ++column) {
      sums[row][column] = hn::Zero(kTag);
    }
  }
  const size_t panel_floats = product.inner * kPanelColumns;
  const float* weights = part.weights;
  const float* x = part.x;
  for (size_t k = 0; k < part.count; ++k, weights += kPanelColumns, ++x) {
    Vector w[kColumns];
#pragma GCC unroll 16
    for (size_t column = 0; column < kColumns; ++column) {
      w[column] =
          hn::LoadU(kTag, weights + column / kVectors * panel_floats + column % kVectors * kLanes);
    }
#pragma GCC unroll 16
    for (size_t row = 0; row < kRows; ++row) {
      const Vector value = hn::Set(kTag, x[row * product.x_stride]);
#pragma GCC unroll 16
      for (size_t column = 0; column < kColumns; ++column) {
        sums[row][column] = hn::MulAdd(value, w[column], sums[row][column]);
      }
    }
  }
#pragma GCC unroll 16
  for (size_t row = 0; row < kRows; ++row) {
    float* const y = part.y + row * product.y_stride;
#pragma GCC unroll 16
    for (size_t column = 0; column < kColumns; ++column) {
      float* const to = y + column * kLanes;
      Vector sum = sums[row][column];
      if (!part.first) {
        sum = hn::Add(hn::LoadU(kTag, to), sum);
      }
      hn::StoreU(sum, kTag, to);
    }
  }
}

// The tile of `rows` rows, at most kRows.
template <size_t kRows, size_t kPanels>
void RunTile(size_t rows, const PanelProduct& product, const Part& part) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      RunTile<kRows - 1, kPanels>(rows, product, part);
      return;
    }
  }
  Tile<kRows, kPanels>(product, part);
}

// Panels [panel, panel + kPanels).
template <size_t kPanels>
void RunPanels(const PanelProduct& product, size_t panel) {
  constexpr size_t kFits = std::min(kMaxRows, kMaxSums / (kPanels * kVectors));
  const float* const weights = product.weights + panel * product.inner * kPanelColumns;
  // Weights of a run stay in the cache while rows go by, in tiles of nearly equal height.
  for (size_t k = 0; k < product.inner; k += kRun) {
    size_t tiles = PartsOf(product.rows, kFits);
    for (size_t row = 0; row < product.rows; --tiles) {
      const size_t rows = PartsOf(product.rows - row, tiles);
      const Part part = {product.x + row * product.x_stride + k, weights + k * kPanelColumns,
                         std::min(kRun, product.inner - k), k == 0,
                         product.y + row * product.y_stride + panel * kPanelColumns};
      RunTile<kFits, kPanels>(rows, product, part);
      row += rows;
    }
  }
}

// As many panels from `panel` on as come in groups of kPanels.
template <size_t kPanels>
void RunGroups(const PanelProduct& product, size_t* panel) {
  if constexpr (kPanels * kVectors <= kMaxSums) {
    for (; *panel + kPanels <= product.columns / kPanelColumns; *panel += kPanels) {
      RunPanels<kPanels>(product, *panel);
    }
  }
}

void Run(const PanelProduct& product) {
  if (product.rows == 0) {
    return;
  }
  const size_t together = PanelsFor(PartsOf(product.rows, PartsOf(product.rows, kMaxRows)));
  size_t panel = 0;
  if (together == 4) {
    RunGroups<4>(product, &panel);
  }
  if (together >= 2) {
    RunGroups<2>(product, &panel);
  }
  RunGroups<1>(product, &panel);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace expertmesh
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace expertmesh {
namespace {

HWY_EXPORT(Run);

// Tells Highway, which asks the CPU itself, what it may use. Its better targets have lower bits.
bool LimitHighway() {
  if (!CpuHasAvx2()) {
    hwy::DisableTargets(HWY_AVX2 | (HWY_AVX2 - 1));
  } else if (!CpuHasAvx512()) {
    hwy::DisableTargets(HWY_AVX2 - 1);
  }
  return true;
}

}  // namespace

size_t PackedPanelFloats(size_t columns, size_t inner) {
  return (columns + kPanelColumns - 1) / kPanelColumns * kPanelColumns * inner;
}

void PackPanels(const float* weights, size_t columns, size_t inner, size_t stride, float* packed) {
  for (size_t first = 0; first < columns; first += kPanelColumns) {
    const size_t count = std::min(kPanelColumns, columns - first);
    for (size_t k = 0; k < inner; ++k) {
      for (size_t column = 0; column < count; ++column) {
        packed[column] = weights[(first + column) * stride + k];
      }
      std::fill(packed + count, packed + kPanelColumns, 0.0f);
      packed += kPanelColumns;
    }
  }
}

void PanelProduct::Run() const {
  static const bool limited = LimitHighway();
  static_cast<void>(limited);
  HWY_DYNAMIC_DISPATCH(Run)(*this);
}

}  // namespace expertmesh
#endif  // HWY_ONCE
