#include "common/experts/batch_plan.h"

#include <algorithm>

namespace expertmesh {
namespace {

// Below this many rows a product costs the reading of its weights.
constexpr uint64_t kCheapRows = 16;
// Tasks per thread that are enough for an even load.
constexpr uint64_t kTasksPerThread = 4;
// Of gate and up products (float32) of one task: they should stay in the level 2 cache.
constexpr uint64_t kTaskProductBytes = uint64_t{1} << 20;

// Every row count up to 8, then multiples of 8: few kernels, little padding.
uint32_t Bucket(uint32_t rows) {
  return rows <= 8 ? rows : static_cast<uint32_t>(RoundUp(rows, 8));
}

uint64_t CostOf(const BatchPlan::Block& block) {
  const MatmulShape& up = block.expert->up();
  const MatmulShape& down = block.expert->down();
  return std::max<uint64_t>(block.count, kCheapRows) *
         (up.inner() * up.columns() + down.inner() * down.columns());
}

const MatmulShape::Split* AtLeast(const MatmulShape& shape, uint64_t panels) {
  for (const MatmulShape::Split& split : shape.splits()) {
    if (split.panels >= panels) {
      return &split;
    }
  }
  return &shape.splits().back();
}

}  // namespace

void BatchPlan::Build(const GroupByExpert& groups, int threads) {
  blocks_.clear();
  up_tasks_.clear();
  down_tasks_.clear();
  for (const GroupByExpert::Group& group : groups.groups()) {
    AddBlocks(group);
  }
  std::sort(blocks_.begin(), blocks_.end(), [](const Block& a, const Block& b) {
    return a.count != b.count ? a.count > b.count : a.begin < b.begin;
  });
  cost_ = 0;
  for (const Block& block : blocks_) {
    cost_ += CostOf(block);
  }
  activation_bytes_ = 0;
  output_floats_ = 0;
  places_.resize(groups.order().size());
  for (uint32_t b = 0; b < blocks_.size(); ++b) {
    Block& block = blocks_[b];
    ChooseSplits(block, threads);
    const MatmulShape& down = block.expert->down();
    block.activations = activation_bytes_;
    block.outputs = output_floats_;
    activation_bytes_ += RoundUp(block.rows * down.inner() * BytesOf(down.dtype()), 64);
    output_floats_ += block.rows * down.columns();
    for (uint32_t panel = 0; panel < block.up->panels; ++panel) {
      up_tasks_.push_back({b, panel});
    }
    for (uint32_t panel = 0; panel < block.down->panels; ++panel) {
      down_tasks_.push_back({b, panel});
    }
    for (uint32_t row = 0; row < block.count; ++row) {
      places_[groups.order()[block.begin + row]] = {b, row};
    }
  }
}

void BatchPlan::AddBlocks(const GroupByExpert::Group& group) {
  const auto* expert = static_cast<const CpuExpert*>(group.expert);
  const uint32_t most =
      static_cast<uint32_t>(std::min(expert->up().max_rows(), expert->down().max_rows()));
  const uint32_t parts = (group.count + most - 1) / most;
  const uint32_t rows = std::min(most, Bucket((group.count + parts - 1) / parts));
  for (uint32_t begin = 0; begin < group.count; begin += rows) {
    Block block;
    block.expert = expert;
    block.begin = group.begin + begin;
    block.count = std::min(rows, group.count - begin);
    blocks_.push_back(block);
  }
}

void BatchPlan::ChooseSplits(Block& block, int threads) {
  const MatmulShape& up = block.expert->up();
  const MatmulShape& down = block.expert->down();
  const uint64_t even = kTasksPerThread * static_cast<uint64_t>(threads) * CostOf(block);
  const uint64_t panels = threads == 1 ? 1 : (even + cost_ - 1) / cost_;
  const uint64_t product = uint64_t{block.count} * up.columns() * sizeof(float);
  block.up = AtLeast(up, std::max(panels, (product + kTaskProductBytes - 1) / kTaskProductBytes));
  block.down = AtLeast(down, panels);
  block.rows = std::max({Bucket(block.count), static_cast<uint32_t>(block.up->min_rows),
                         static_cast<uint32_t>(block.down->min_rows)});
}

}  // namespace expertmesh
