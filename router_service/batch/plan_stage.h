// Third stage: which node computes which assignments.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_PLAN_STAGE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_PLAN_STAGE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "router_service/batch/batch.h"
#include "router_service/batch/batch_part.h"
#include "router_service/plan/planner.h"
#include "router_service/plan/shared_placement.h"

namespace expertmesh::batch {

// Working memory of a pooled run. Not thread-safe. A plan is valid until the next.
class PlanStage {
 public:
  // All that the batch routed, and what of its shared experts nodes compute, on its view.
  plan::BatchPlan& PlanAll(const Batch& batch, const std::optional<plan::SharedDemand>& shared);
  // With a demand: rows of it that the last PlanAll gave to no node; ascending.
  absl::Span<const uint32_t> shared_rows_here() const { return shared_placement_.rows_here(); }
  // What `part` was to compute, by those of `replicas`, [num_experts] of `view`.
  plan::BatchPlan& PlanAgain(const Batch& batch, const BatchPart& part, const mesh::MeshView& view,
                             const std::vector<mesh::ExpertReplicas>& replicas);

  size_t MemoryBytes() const;

 private:
  plan::BatchPlan& Plan(const Batch& batch, const mesh::MeshView& view,
                        const std::vector<mesh::ExpertReplicas>& replicas,
                        const plan::Assignments& assignments);

  plan::Planner planner_;
  plan::SharedPlacement shared_placement_;
  std::vector<uint32_t> rows_;  // 0, 1, 2, ...
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_PLAN_STAGE_H_
