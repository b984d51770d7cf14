#include "common/experts/compute_plan.h"

#include <algorithm>

#include "common/tensor/aligned_buffer.h"

namespace expertmesh::experts {
namespace {

// Below this many rows a product costs the reading of its weights.
constexpr uint64_t kCheapRows = 16;
// The same with weights that are expanded first.
constexpr uint64_t kCheapExpandedRows = 128;
// Tasks per thread that are enough for an even load.
constexpr uint64_t kTasksPerThread = 4;
// The gate and up products (float32) of one task: they should stay in the level 2 cache.
constexpr uint64_t kTaskProductBytes = uint64_t{1} << 20;
// The expanded weights of one task, for the same reason.
constexpr uint64_t kTaskWeightBytes = uint64_t{1} << 20;
// Blocks of one expert have a multiple of that many rows, but for the last.
constexpr uint32_t kRowStep = 16;

const MatmulShape::Split* SplitIntoAtLeast(const MatmulShape& shape, uint64_t panels) {
  for (const MatmulShape::Split& split : shape.splits()) {
    if (split.panels >= panels) {
      return &split;
    }
  }
  return &shape.splits().back();
}

}  // namespace

void ComputePlan::Build(const GroupByExpert& groups, int threads) {
  blocks_.clear();
  ranges_.clear();
  up_tasks_.clear();
  down_tasks_.clear();
  largest_first_.assign(groups.groups().begin(), groups.groups().end());
  std::sort(largest_first_.begin(), largest_first_.end(),
            [](const GroupByExpert::Group& a, const GroupByExpert::Group& b) {
              return a.count != b.count ? a.count > b.count : a.begin < b.begin;
            });
  for (const GroupByExpert::Group& group : largest_first_) {
    AddBlocks(group);
  }
  cost_ = 0;
  for (const BlockRange& range : ranges_) {
    cost_ += CostOf(range);
  }
  activation_bytes_ = 0;
  output_floats_ = 0;
  places_.resize(groups.order().size());
  for (const BlockRange& range : ranges_) {
    ChooseSplits(range, threads);
    PlaceRows(range, groups);
    AddTasks(range);
  }
}

void ComputePlan::AddBlocks(const GroupByExpert::Group& group) {
  const auto* expert = static_cast<const CpuExpert*>(group.expert);
  const uint32_t most = kMaxRows;
  const uint32_t parts = (group.count + most - 1) / most;
  // Even parts, of whole tiles of rows.
  const uint32_t even =
      static_cast<uint32_t>(matmul::RoundUp((group.count + parts - 1) / parts, kRowStep));
  const uint32_t rows = std::min(most, even);
  const uint32_t first = static_cast<uint32_t>(blocks_.size());
  for (uint32_t begin = 0; begin < group.count; begin += rows) {
    Block block;
    block.expert = expert;
    block.begin = group.begin + begin;
    block.count = std::min(rows, group.count - begin);
    if (!expert->compressed()) {
      ranges_.push_back({static_cast<uint32_t>(blocks_.size()), 1, block.count});
    }
    blocks_.push_back(block);
  }
  if (expert->compressed()) {
    ranges_.push_back({first, static_cast<uint32_t>(blocks_.size()) - first, group.count});
  }
}

uint64_t ComputePlan::CostOf(const BlockRange& range) const {
  const CpuExpert& expert = *blocks_[range.block].expert;
  const uint64_t weights =
      expert.up().inner() * expert.up().columns() + expert.down().inner() * expert.down().columns();
  return expert.compressed() ? (range.rows + kCheapExpandedRows) * weights
                             : std::max<uint64_t>(range.rows, kCheapRows) * weights;
}

void ComputePlan::ChooseSplits(const BlockRange& range, int threads) {
  const CpuExpert& expert = *blocks_[range.block].expert;
  const MatmulShape& up = expert.up();
  const MatmulShape& down = expert.down();
  const uint64_t even = kTasksPerThread * static_cast<uint64_t>(threads) * CostOf(range);
  const uint64_t panels = threads == 1 ? 1 : (even + cost_ - 1) / cost_;
  const uint64_t product = uint64_t{blocks_[range.block].count} * up.columns() * sizeof(float);
  uint64_t up_panels = std::max(panels, (product + kTaskProductBytes - 1) / kTaskProductBytes);
  uint64_t down_panels = panels;
  if (expert.compressed()) {
    up_panels = std::max(up_panels, up.bytes() / kTaskWeightBytes);
    down_panels = std::max(down_panels, down.bytes() / kTaskWeightBytes);
  }
  const MatmulShape::Split* const up_split = SplitIntoAtLeast(up, up_panels);
  const MatmulShape::Split* const down_split = SplitIntoAtLeast(down, down_panels);
  for (uint32_t b = range.block; b < range.block + range.count; ++b) {
    Block& block = blocks_[b];
    block.up = up_split;
    block.down = down_split;
  }
}

void ComputePlan::PlaceRows(const BlockRange& range, const GroupByExpert& groups) {
  for (uint32_t b = range.block; b < range.block + range.count; ++b) {
    Block& block = blocks_[b];
    const MatmulShape& down = block.expert->down();
    block.activations = activation_bytes_;
    block.outputs = output_floats_;
    activation_bytes_ += block.count * down.x_row_bytes();
    output_floats_ += block.count * down.columns();
    for (uint32_t row = 0; row < block.count; ++row) {
      places_[groups.order()[block.begin + row]] = {b, row};
    }
  }
}

void ComputePlan::AddTasks(const BlockRange& range) {
  const Block& block = blocks_[range.block];
  for (uint32_t panel = 0; panel < block.up->panels; ++panel) {
    up_tasks_.push_back({range.block, range.count, panel});
  }
  for (uint32_t panel = 0; panel < block.down->panels; ++panel) {
    down_tasks_.push_back({range.block, range.count, panel});
  }
}

}  // namespace expertmesh::experts
