// The plan of one batch: which node computes which assignments, with one copy of each token row per
// node.
#ifndef EXPERTMESH_ROUTER_SERVICE_PLAN_PLANNER_H_
#define EXPERTMESH_ROUTER_SERVICE_PLAN_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "router_service/mesh/placement.h"
#include "router_service/plan/replica_choice.h"

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
};

// Node plans that nobody uses any more, kept for their memory. Thread-safe.
class NodePlanPool {
 public:
  // Appends `count` plans with anything in them.
  void Take(size_t count, std::vector<NodePlan>* plans);
  // Leaves `plans` empty. Those without memory (moved from) and those that would make the pool
  // larger than kMaxBytes are freed.
  void Recycle(std::vector<NodePlan>* plans);
  void Recycle(NodePlan plan);

  static constexpr size_t kMaxBytes = size_t{64} << 20;

 private:
  void Keep(NodePlan& plan) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  std::vector<NodePlan> free_ ABSL_GUARDED_BY(mutex_);
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

// An assignment that no node can take.
struct Unplaced {
  uint32_t row = 0;
  uint32_t expert = 0;
};

struct BatchPlan {
  // In placement order; at most one plan per node unless a node's row limit cuts it.
  std::vector<NodePlan> nodes;
  // In order of rows.
  std::vector<Unplaced> unplaced;
  // Rows sent, summed over nodes.
  uint64_t transfers = 0;
  // What `transfers` would be about if every assignment went to a replica drawn at random: the
  // figure to compare with. From one row in sixteen, so only the sum over many batches means
  // something.
  double uniform_transfers = 0;
};

// Plans batches, see ReplicaChoice for the rule. Linear in the number of assignments. Memory is
// reused: after the largest batch was seen and as long as node plans come back to the pool, nothing
// is allocated. Not thread-safe: one per thread.
class Planner {
 public:
  // The plan is valid until the next call; node plans may be moved out of it, and go to `pool` when
  // they have served. Every expert id is below replicas.size().
  BatchPlan& Plan(const std::vector<mesh::ExpertReplicas>& replicas, const Assignments& assignments,
                  LoadOfNode load, NodePlanPool* pool);

 private:
  // Where the plan of one node is written.
  struct Writer {
    uint32_t* rows = nullptr;
    uint32_t* row_begin = nullptr;
    uint32_t* expert_ids = nullptr;
    float* expert_weights = nullptr;
    uint32_t row_count = 0;
    uint32_t assignment_count = 0;
    uint32_t last = ~uint32_t{0};  // Index in Assignments::rows of its last row.
  };

  void MakeRoom(size_t rows, NodePlanPool* pool);
  void Write(const Assignments& assignments);
  void Finish();
  void CutToLimits(NodePlanPool* pool);
  double UniformTransfers(const std::vector<mesh::ExpertReplicas>& replicas,
                          const Assignments& assignments);
  uint32_t Draw(size_t below);

  ReplicaChoice choice_;
  std::vector<Writer> writers_;
  std::vector<NodePlan> uncut_;
  std::vector<mesh::NodeIndex> drawn_;  // For one row.
  size_t until_sample_ = 0;             // Rows.
  uint64_t random_ = 1;
  BatchPlan plan_;
};

}  // namespace expertmesh::plan

#endif  // EXPERTMESH_ROUTER_SERVICE_PLAN_PLANNER_H_
