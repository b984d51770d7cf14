// What one node gets of a batch, and how it is cut into pieces.
#ifndef EXPERTMESH_ROUTER_SERVICE_PLAN_NODE_PLAN_H_
#define EXPERTMESH_ROUTER_SERVICE_PLAN_NODE_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "router_service/mesh/placement.h"

namespace expertmesh::plan {

// What one node gets: distinct token rows, each with its assignments in slot order.
struct NodePlan {
  mesh::NodeIndex node = 0;
  // Rows of the batch, ascending, each once.
  std::vector<uint32_t> rows;
  // Assignments of rows[i] are [row_begin[i], row_begin[i + 1]).
  std::vector<uint32_t> row_begin;
  std::vector<uint32_t> expert_ids;
  std::vector<float> expert_weights;

  // Contents are undefined where it grows.
  void Resize(size_t row_count, size_t assignments);
};

// Node plans that are no longer used, kept for their memory. Thread-safe.
class NodePlanPool {
 public:
  // Appends `count` plans with anything in them.
  void Take(size_t count, std::vector<NodePlan>* plans);
  // Leaves `plans` empty. Those without memory (moved from) and those that would make the pool
  // larger than kMaxBytes are freed.
  void Recycle(std::vector<NodePlan>* plans);
  void Recycle(NodePlan plan);

  // Frees what is kept.
  void Shed();

  static constexpr size_t kMaxBytes = size_t{64} << 20;

 private:
  void Keep(NodePlan& plan) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  std::vector<NodePlan> free_ ABSL_GUARDED_BY(mutex_);
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Appends `plan` to `pieces`, in pieces of at most `limit` rows each (0: no limit), in order.
// Memory for them is from `pool`.
void CutToRows(NodePlan plan, uint32_t limit, NodePlanPool* pool, std::vector<NodePlan>* pieces);

// The same in pieces of at most `limit` assignments each. A row whose assignments are cut is in
// both pieces.
void CutToAssignments(NodePlan plan, uint32_t limit, NodePlanPool* pool,
                      std::vector<NodePlan>* pieces);

// Takes the rows `rows`, each of which is in `plan`, out of it; both ascend. Memory for the result
// is from `pool`.
NodePlan TakeRows(absl::Span<const uint32_t> rows, NodePlanPool* pool, NodePlan* plan);

}  // namespace expertmesh::plan

#endif  // EXPERTMESH_ROUTER_SERVICE_PLAN_NODE_PLAN_H_
