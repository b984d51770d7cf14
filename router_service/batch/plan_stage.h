// Third stage: which node computes which assignments.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_PLAN_STAGE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_PLAN_STAGE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "router_service/batch/batch.h"
#include "router_service/batch/batch_part.h"
#include "router_service/plan/planner.h"

namespace expertmesh::batch {

// Working memory of a pooled run. Not thread-safe. A plan is valid until the next.
class PlanStage {
 public:
  // All that the batch routed, on its view.
  plan::BatchPlan& PlanAll(const Batch& batch);
  // What `part` was to compute, by those of `replicas`, [num_experts] of `view`.
  plan::BatchPlan& PlanAgain(const Batch& batch, const BatchPart& part, const mesh::MeshView& view,
                             const std::vector<mesh::ExpertReplicas>& replicas);

  size_t MemoryBytes() const;

 private:
  plan::BatchPlan& Plan(const Batch& batch, const mesh::MeshView& view,
                        const std::vector<mesh::ExpertReplicas>& replicas,
                        const plan::Assignments& assignments);

  plan::Planner planner_;
  std::vector<uint32_t> rows_;  // 0, 1, 2, ...
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_PLAN_STAGE_H_
