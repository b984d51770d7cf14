// How a batch is cut into pieces of work. Private to common/experts.
#ifndef EXPERTMESH_COMMON_EXPERTS_COMPUTE_PLAN_H_
#define EXPERTMESH_COMMON_EXPERTS_COMPUTE_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/experts/cpu_expert.h"
#include "common/experts/group_by_expert.h"
#include "common/experts/matmul.h"

namespace expertmesh::experts {

// Keeps its memory between batches. Not thread-safe.
class ComputePlan {
 public:
  // Rows that go through one expert together.
  struct Block {
    const CpuExpert* expert = nullptr;
    // Assignments order()[begin, begin + count) of the groups.
    uint32_t begin = 0;
    uint32_t count = 0;
    // How its two products are divided over tasks.
    const MatmulShape::Split* up = nullptr;
    const MatmulShape::Split* down = nullptr;
    // Where its activations (bytes; the x of a product by down) and its outputs (floats; the y of
    // each of its panels) are.
    size_t activations = 0;
    size_t outputs = 0;
  };
  // One panel of one of the products of `count` blocks: one block, or all of a compressed expert,
  // whose panel is expanded once for them. The blocks have the same splits then.
  struct Task {
    uint32_t block;
    uint32_t count;
    uint32_t panel;
  };
  // Where an assignment's output is.
  struct RowPlace {
    uint32_t block;
    uint32_t row;
  };

  // `groups` must have been built; each of its experts is a CpuExpert.
  void Build(const GroupByExpert& groups, int threads);

  absl::Span<const Block> blocks() const { return blocks_; }
  // Largest first.
  absl::Span<const Task> up_tasks() const { return up_tasks_; }
  absl::Span<const Task> down_tasks() const { return down_tasks_; }
  absl::Span<const RowPlace> places() const { return places_; }
  size_t activation_bytes() const { return activation_bytes_; }
  size_t output_floats() const { return output_floats_; }
  // Multiplications, roughly.
  uint64_t cost() const { return cost_; }

 private:
  // Blocks that are worked on together.
  struct BlockRange {
    uint32_t block;
    uint32_t count;
    uint32_t rows;
  };

  void AddBlocks(const GroupByExpert::Group& group);
  uint64_t CostOf(const BlockRange& range) const;
  void ChooseSplits(const BlockRange& range, int threads);
  void PlaceRows(const BlockRange& range, const GroupByExpert& groups);
  void AddTasks(const BlockRange& range);

  std::vector<GroupByExpert::Group> largest_first_;
  std::vector<Block> blocks_;
  std::vector<BlockRange> ranges_;
  std::vector<Task> up_tasks_;
  std::vector<Task> down_tasks_;
  std::vector<RowPlace> places_;
  size_t activation_bytes_ = 0;
  size_t output_floats_ = 0;
  uint64_t cost_ = 0;
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_COMPUTE_PLAN_H_
