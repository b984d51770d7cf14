// What a batch does about assignments that are lost, or that no node can take.
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "router_service/batch_run.h"

namespace expertmesh {
namespace {

// `slices[s]` is the slice of the expert that `node` holds in `placement`; only that one is to be
// served again, and only from a placement cut the same way.
ExpertReplicas ReplicasOfSlice(const ExpertReplicas& before, const ExpertReplicas& now,
                               NodeIndex node) {
  const std::optional<size_t> slice = before.SliceOn(node);
  if (!slice || before.slices.size() != now.slices.size()) {
    return {};
  }
  return ExpertReplicas{{now.slices[*slice]}};
}

}  // namespace

void BatchRun::Narrow(const BatchPart& part, ExpertReplicas* replicas) {
  for (std::vector<NodeIndex>& nodes : replicas->slices) {
    std::erase_if(nodes, [&part](NodeIndex node) { return part.lost_by.contains(node); });
    std::vector<NodeIndex> willing = nodes;
    std::erase_if(willing, [&part](NodeIndex node) { return part.refused_by.contains(node); });
    if (!willing.empty()) {
      nodes = std::move(willing);
    }
    if (nodes.empty()) {
      *replicas = {};
      return;
    }
  }
}

void BatchRun::PlanAnew(BatchPart* part) {
  const PlanningScope planning;
  const NodePlan& plan = part->plan;
  const std::shared_ptr<const Placement> placement = environment_->fleet->placement();
  const std::vector<ExpertReplicas>& before = *part->placement->Layer(layer_->description.layer);
  const std::vector<ExpertReplicas>& now = *placement->Layer(layer_->description.layer);
  std::vector<ExpertReplicas> replicas(now.size());
  for (const uint32_t expert : plan.expert_ids) {
    if (replicas[expert].missing()) {
      replicas[expert] = ReplicasOfSlice(before[expert], now[expert], plan.node);
      Narrow(*part, &replicas[expert]);
    }
  }
  const Assignments assignments{plan.rows, plan.row_begin, plan.expert_ids, plan.expert_weights};
  environment_->metrics->retried_assignments.Increment(static_cast<double>(plan.expert_ids.size()));
  Dispatch(Plan(replicas, assignments), placement, part);
}

void BatchRun::FailUnplaced(const std::vector<Unplaced>& unplaced, const absl::Status& cause) {
  std::map<size_t, std::set<uint32_t>> experts_of_job;
  for (const Unplaced& assignment : unplaced) {
    experts_of_job[JobOfRow(assignment.row)].insert(assignment.expert);
  }
  for (const auto& [job, experts] : experts_of_job) {
    const absl::StatusCode code = cause.code() == absl::StatusCode::kResourceExhausted
                                      ? cause.code()
                                      : absl::StatusCode::kUnavailable;
    std::string message =
        absl::StrCat("layer ", layer_->description.layer, ": no ready node holds expert",
                     experts.size() == 1 ? " " : "s ", absl::StrJoin(experts, ", "),
                     "; retry when one does (Control.GetTopology tells)");
    if (!cause.ok()) {
      absl::StrAppend(&message, "; last error: ", cause.message());
    }
    jobs_[job]->Fail(absl::Status(code, message));
  }
}

}  // namespace expertmesh
