// The plan of one batch: which node computes which assignments, with one copy of each token row per
// node.
#ifndef EXPERTMESH_ROUTER_SERVICE_PLAN_PLANNER_H_
#define EXPERTMESH_ROUTER_SERVICE_PLAN_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "router_service/mesh/placement.h"
#include "router_service/plan/node_plan.h"
#include "router_service/plan/replica_choice.h"

namespace expertmesh::plan {

// An assignment that no node can take.
struct Unplaced {
  uint32_t row = 0;
  uint32_t expert = 0;
};

struct BatchPlan {
  // In placement order; one for each node that is used.
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
// is allocated. Not thread-safe.
class Planner {
 public:
  // The plan is valid until the next call; node plans may be moved out of it, and go to `pool` when
  // they have served. Every expert id is below replicas.size().
  BatchPlan& Plan(const std::vector<mesh::ExpertReplicas>& replicas, const Assignments& assignments,
                  WorkOfNode work, NodePlanPool* pool);

  // Memory it keeps.
  size_t MemoryBytes() const;

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
  template <typename Serving>
  void WriteAs(const Assignments& assignments, Serving serving_of);
  void Finish();
  double UniformTransfers(const std::vector<mesh::ExpertReplicas>& replicas,
                          const Assignments& assignments);
  uint32_t Draw(size_t below);

  ReplicaChoice choice_;
  std::vector<Writer> writers_;
  std::vector<mesh::NodeIndex> drawn_;  // For one row.
  size_t until_sample_ = 0;             // Rows.
  uint64_t random_ = 1;
  BatchPlan plan_;
};

}  // namespace expertmesh::plan

#endif  // EXPERTMESH_ROUTER_SERVICE_PLAN_PLANNER_H_
