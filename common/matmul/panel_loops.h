// The loops around the tiles of panel_product.h, the same for every type and instruction set.
// Private to common/matmul.
#ifndef EXPERTMESH_COMMON_MATMUL_PANEL_LOOPS_H_
#define EXPERTMESH_COMMON_MATMUL_PANEL_LOOPS_H_

#include <algorithm>
#include <cstddef>

#include "common/matmul/panel_product.h"

namespace expertmesh::matmul::panel_loops {

// What the fixed order of sums says.
inline constexpr size_t kRun = 256;
// Most panels of one tile of sums.
inline constexpr size_t kMaxPanels = 4;

// A product: fields as in PanelProduct.
template <typename X, typename Weight>
struct Job {
  const X* x;
  size_t x_stride;
  size_t rows;
  size_t inner;
  size_t columns;
  const Weight* weights;
  float* y;
  size_t y_stride;

  size_t panel_elements() const { return inner * kPanelColumns; }
};

// What one tile of sums multiplies: `count` of the inner dimension, for some rows and panels.
template <typename X, typename Weight>
struct Part {
  const X* x;             // First row, first of the run.
  const Weight* weights;  // First panel, first of the run.
  size_t count;
  bool first;  // The first run: y is set, not added to.
  float* y;
};

// A kernel has
//   X, Weight          its types
//   kMaxSums           vectors of sums that its registers hold
//   kVectors           vectors of a panel's columns
//   kMaxRows           most rows of a tile
//   Tile<kRows, kPanels>(job, part)
// and tiles have at most kMaxSums vectors of sums.
template <typename Kernel>
using JobOf = Job<typename Kernel::X, typename Kernel::Weight>;
template <typename Kernel>
using PartOf = Part<typename Kernel::X, typename Kernel::Weight>;

// Panels of a tile of `rows` rows: a power of two.
template <typename Kernel>
constexpr size_t PanelsFor(size_t rows) {
  size_t panels = kMaxPanels;
  while (panels > 1 && rows * panels * Kernel::kVectors > Kernel::kMaxSums) {
    panels /= 2;
  }
  return panels;
}

// `count` in as few equal parts as possible of at most `most`: their number.
inline size_t PartsOf(size_t count, size_t most) { return (count + most - 1) / most; }

// The tile of `rows` rows, at most kRows.
template <typename Kernel, size_t kRows, size_t kPanels>
void RunTile(size_t rows, const JobOf<Kernel>& job, const PartOf<Kernel>& part) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      RunTile<Kernel, kRows - 1, kPanels>(rows, job, part);
      return;
    }
  }
  Kernel::template Tile<kRows, kPanels>(job, part);
}

// Panels [panel, panel + kPanels).
template <typename Kernel, size_t kPanels>
void RunPanels(const JobOf<Kernel>& job, bool add, size_t panel) {
  constexpr size_t kFits =
      std::min(Kernel::kMaxRows, Kernel::kMaxSums / (kPanels * Kernel::kVectors));
  const auto* const weights = job.weights + panel * job.panel_elements();
  // Weights of a run stay in the cache while rows go by, in tiles of nearly equal height.
  for (size_t k = 0; k < job.inner; k += kRun) {
    size_t tiles = PartsOf(job.rows, kFits);
    for (size_t row = 0; row < job.rows; --tiles) {
      const size_t rows = PartsOf(job.rows - row, tiles);
      const PartOf<Kernel> part = {job.x + row * job.x_stride + k, weights + k * kPanelColumns,
                                   std::min(kRun, job.inner - k), k == 0 && !add,
                                   job.y + row * job.y_stride + panel * kPanelColumns};
      RunTile<Kernel, kFits, kPanels>(rows, job, part);
      row += rows;
    }
  }
}

// As many panels from `panel` on as come in groups of kPanels.
template <typename Kernel, size_t kPanels>
void RunGroups(const JobOf<Kernel>& job, bool add, size_t* panel) {
  if constexpr (kPanels * Kernel::kVectors <= Kernel::kMaxSums) {
    for (; *panel + kPanels <= job.columns / kPanelColumns; *panel += kPanels) {
      RunPanels<Kernel, kPanels>(job, add, *panel);
    }
  }
}

// `add`: to what y holds, as a further run of a longer sum.
template <typename Kernel>
void RunJob(const JobOf<Kernel>& job, bool add = false) {
  if (job.rows == 0) {
    return;
  }
  const size_t tiles = PartsOf(job.rows, Kernel::kMaxRows);
  const size_t together = PanelsFor<Kernel>(PartsOf(job.rows, tiles));
  size_t panel = 0;
  if (together == kMaxPanels) {
    RunGroups<Kernel, kMaxPanels>(job, add, &panel);
  }
  if (together >= 2) {
    RunGroups<Kernel, 2>(job, add, &panel);
  }
  RunGroups<Kernel, 1>(job, add, &panel);
}

}  // namespace expertmesh::matmul::panel_loops

#endif  // EXPERTMESH_COMMON_MATMUL_PANEL_LOOPS_H_
