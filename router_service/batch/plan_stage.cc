#include "router_service/batch/plan_stage.h"

#include <numeric>

#include "common/base/check.h"
#include "router_service/mesh/node_link.h"

namespace expertmesh::batch {

plan::BatchPlan& PlanStage::Plan(const Batch& batch, const mesh::MeshView& view,
                                 const std::vector<mesh::ExpertReplicas>& replicas,
                                 const plan::Assignments& assignments) {
  return planner_.Plan(
      replicas, assignments,
      [&view](mesh::NodeIndex node) { return view.node(node).link->rows_in_flight(); },
      batch.environment->node_plans);
}

plan::BatchPlan& PlanStage::PlanAll(const Batch& batch,
                                    const std::optional<plan::SharedDemand>& shared) {
  const std::vector<mesh::ExpertReplicas>* replicas =
      batch.view->placement().Layer(batch.layer_index());
  EXPERTMESH_CHECK(replicas != nullptr);
  const uint32_t rows = batch.requests.rows();
  if (rows_.size() < rows) {
    rows_.resize(rows);
    std::iota(rows_.begin(), rows_.end(), 0);
  }
  const gate::RoutedTokens& routed = batch.routed;
  plan::BatchPlan& plan = Plan(batch, *batch.view, *replicas,
                               {absl::MakeConstSpan(rows_).first(rows), routed.token_begin,
                                routed.expert_ids, routed.weights, batch.layer_index()});
  metrics::RouterMetrics& metrics = *batch.environment->metrics;
  if (shared.has_value()) {
    const mesh::MeshView& view = *batch.view;
    shared_placement_.Place(
        (*replicas)[shared->expert].slices.front(), *shared,
        [&view](mesh::NodeIndex node) { return view.node(node).link->rows_in_flight(); },
        batch.environment->node_plans, &plan);
    metrics.CountSharedRows("nodes", rows - shared_rows_here().size());
  }
  metrics.batch_nodes.Observe(static_cast<double>(plan.nodes.size()));
  metrics.planned_tokens.Increment(rows);
  metrics.token_transfers.Increment(static_cast<double>(plan.transfers));
  metrics.uniform_token_transfers.Increment(plan.uniform_transfers);
  return plan;
}

plan::BatchPlan& PlanStage::PlanAgain(const Batch& batch, const BatchPart& part,
                                      const mesh::MeshView& view,
                                      const std::vector<mesh::ExpertReplicas>& replicas) {
  const plan::NodePlan& lost = part.plan;
  batch.environment->metrics->retried_assignments.Increment(
      static_cast<double>(lost.expert_ids.size()));
  return Plan(
      batch, view, replicas,
      {lost.rows, lost.row_begin, lost.expert_ids, lost.expert_weights, batch.layer_index()});
}

size_t PlanStage::MemoryBytes() const {
  return planner_.MemoryBytes() + shared_placement_.MemoryBytes() +
         rows_.capacity() * sizeof(uint32_t);
}

}  // namespace expertmesh::batch
