// What a batch does about assignments that are lost, or that no node can take.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "router_service/batch/batch_run.h"

namespace expertmesh::batch {
namespace {

// `slices[s]` is the slice of the expert that `node` holds in `placement`; only that one is to be
// served again, and only from a placement cut the same way.
mesh::ExpertReplicas ReplicasOfSlice(const mesh::ExpertReplicas& before,
                                     const mesh::ExpertReplicas& now, mesh::NodeIndex node) {
  const std::optional<size_t> slice = before.SliceOn(node);
  if (!slice || before.slices.size() != now.slices.size()) {
    return {};
  }
  return mesh::ExpertReplicas{{now.slices[*slice]}};
}

}  // namespace

void BatchRun::Narrow(const BatchPart& part, mesh::ExpertReplicas* replicas) {
  for (std::vector<mesh::NodeIndex>& nodes : replicas->slices) {
    std::erase_if(nodes, [&part](mesh::NodeIndex node) { return part.lost_by.contains(node); });
    std::vector<mesh::NodeIndex> willing = nodes;
    std::erase_if(willing,
                  [&part](mesh::NodeIndex node) { return part.refused_by.contains(node); });
    if (!willing.empty()) {
      nodes = std::move(willing);
    }
    if (nodes.empty()) {
      *replicas = {};
      return;
    }
  }
}

std::vector<mesh::ExpertReplicas> BatchRun::ReplicasFor(const BatchPart& part,
                                                        const mesh::Placement& placement) const {
  const std::vector<mesh::ExpertReplicas>& before =
      *part.placement->Layer(layer_->description.layer);
  const std::vector<mesh::ExpertReplicas>& now = *placement.Layer(layer_->description.layer);
  std::vector<mesh::ExpertReplicas> replicas(now.size());
  for (const uint32_t expert : part.plan.expert_ids) {
    if (replicas[expert].missing()) {
      replicas[expert] = ReplicasOfSlice(before[expert], now[expert], part.plan.node);
      Narrow(part, &replicas[expert]);
    }
  }
  return replicas;
}

void BatchRun::PlanAnew(BatchPart* part) {
  const PlanningScope planning;
  const plan::NodePlan& plan = part->plan;
  const std::shared_ptr<const mesh::Placement> placement = environment_->fleet->placement();
  const plan::Assignments assignments{plan.rows, plan.row_begin, plan.expert_ids,
                                      plan.expert_weights};
  environment_->metrics->retried_assignments.Increment(static_cast<double>(plan.expert_ids.size()));
  Dispatch(Plan(ReplicasFor(*part, *placement), assignments), placement, part);
}

std::vector<uint32_t> BatchRun::DoubtfulRows(const BatchPart& part) const {
  const plan::NodePlan& plan = part.plan;
  const DType activation = environment_->activation_dtype;
  const size_t d_model = environment_->d_model;
  std::vector<uint32_t> rows;
  for (const uint32_t answered : part.nonfinite_rows) {
    size_t i = answered;
    if (part.per_assignment) {
      const auto after = std::upper_bound(plan.row_begin.begin(), plan.row_begin.end(), answered);
      i = static_cast<size_t>(after - plan.row_begin.begin()) - 1;
    }
    const uint32_t row = plan.rows[i];
    const bool finite_weights = std::all_of(plan.expert_weights.begin() + plan.row_begin[i],
                                            plan.expert_weights.begin() + plan.row_begin[i + 1],
                                            [](float weight) { return std::isfinite(weight); });
    const uint8_t* const sent = hidden_states_->data() + row * d_model * BytesOf(activation);
    if (finite_weights && !HasNonFinite(activation, sent, d_model) &&
        (rows.empty() || rows.back() != row)) {
      rows.push_back(row);
    }
  }
  return rows;
}

bool BatchRun::AskElsewhere(BatchPart* part) {
  if (part->nonfinite_rows.empty()) {
    return false;
  }
  part->doubtful_rows = DoubtfulRows(*part);
  if (part->doubtful_rows.empty() || part->attempt >= environment_->max_attempts || AllAnswered()) {
    return false;
  }
  // As after a refusal: what no other node holds is asked of this one again.
  part->refused_by.insert(part->plan.node);
  const std::shared_ptr<const mesh::Placement> placement = environment_->fleet->placement();
  const std::vector<mesh::ExpertReplicas> replicas = ReplicasFor(*part, *placement);
  const auto has_another = [&](uint32_t expert) {
    const std::vector<std::vector<mesh::NodeIndex>>& slices = replicas[expert].slices;
    return !slices.empty() &&
           std::none_of(slices[0].begin(), slices[0].end(),
                        [part](mesh::NodeIndex node) { return part->refused_by.contains(node); });
  };
  if (std::none_of(part->plan.expert_ids.begin(), part->plan.expert_ids.end(), has_another)) {
    return false;
  }
  part->why_lost = absl::UnavailableError("a node answered with NaN or an infinity");
  AddWork();
  environment_->pool->Run([this, part] {
    PlanAnew(part);
    WorkDone();
  });
  return true;
}

void BatchRun::JudgeDoubtful() {
  absl::MutexLock lock(&mutex_);
  // True when what counts for a doubtful row is finite.
  const auto is_finite = [this](uint32_t row) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    bool covered = false;
    for (const std::shared_ptr<BatchPart>& part : parts_) {
      const std::vector<uint32_t>& doubtful = part->doubtful_rows;
      if (part->contributes && std::binary_search(doubtful.begin(), doubtful.end(), row)) {
        return false;
      }
      const std::vector<uint32_t>& rows = part->plan.rows;
      covered = covered || (part->contributes && std::binary_search(rows.begin(), rows.end(), row));
    }
    return covered;
  };
  for (const std::shared_ptr<BatchPart>& part : parts_) {
    if (part->doubtful_rows.empty()) {
      continue;
    }
    if (part->contributes) {
      environment_->metrics->CountNonFiniteAnswer(part->second_opinion ? "confirmed"
                                                                       : "unconfirmed");
    } else if (std::all_of(part->doubtful_rows.begin(), part->doubtful_rows.end(), is_finite)) {
      environment_->metrics->CountNonFiniteAnswer("fault");
      if (const std::shared_ptr<mesh::NodeLink> link = environment_->fleet->node(part->plan.node)) {
        link->CountFault(mesh::NodeFault::kNonFinite);
      }
    }
  }
}

void BatchRun::FailUnplaced(const std::vector<plan::Unplaced>& unplaced,
                            const absl::Status& cause) {
  std::map<size_t, std::set<uint32_t>> experts_of_job;
  for (const plan::Unplaced& assignment : unplaced) {
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

}  // namespace expertmesh::batch
