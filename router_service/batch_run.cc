#include "router_service/batch_run.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/wire/tensor_copy.h"
#include "router_service/cut_plan.h"

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

BatchRun::BatchRun(const RunEnvironment* environment, const LayerRuntime* layer,
                   std::vector<ForwardJobPtr> jobs, std::function<void()> on_finished)
    : environment_(environment),
      layer_(layer),
      jobs_(std::move(jobs)),
      on_finished_(std::move(on_finished)),
      closed_at_(environment->clock->Now()),
      inline_(RowsOf(jobs_) <= environment->inline_tokens) {}

void BatchRun::Run() {
  // Not within another one, which an answer given at once can lead to: both would use one planner.
  thread_local bool starting = false;
  if (inline_ && !starting) {
    starting = true;
    Start();
    starting = false;
  } else {
    environment_->pool->Run([self = shared_from_this()] { self->Start(); });
  }
}

void BatchRun::Start() {
  if (!AllAnswered()) {
    GatherRows();
    Route();
  }
  if (!AllAnswered()) {
    DispatchAll();
    if (inline_ && layer_->shared_expert != nullptr) {
      AddWork();
      environment_->pool->Run([self = shared_from_this()] {
        self->ComputeShared();
        self->WorkDone();
      });
    } else {
      ComputeShared();
    }
  }
  WorkDone();
}

void BatchRun::GatherRows() {
  for (const ForwardJobPtr& job : jobs_) {
    first_row_of_job_.push_back(rows_);
    rows_ += static_cast<uint32_t>(job->rows());
    environment_->metrics->queue_seconds.Observe(absl::ToDoubleSeconds(closed_at_ - job->arrival));
  }
  const size_t row_bytes = environment_->d_model * BytesOf(environment_->activation_dtype);
  hidden_states_ = std::make_shared<AlignedBuffer>(rows_ * row_bytes);
  uint64_t nonfinite = 0;
  for (size_t i = 0; i < jobs_.size(); ++i) {
    nonfinite += CopyRows(jobs_[i]->hidden_states, environment_->activation_dtype,
                          hidden_states_->data() + first_row_of_job_[i] * row_bytes);
  }
  environment_->metrics->nonfinite_tokens.Increment(static_cast<double>(nonfinite));
  environment_->metrics->batch_tokens.Observe(rows_);
}

void BatchRun::Route() {
  thread_local GateScratch scratch;
  std::vector<RequestTokens> requests;
  for (const ForwardJobPtr& job : jobs_) {
    requests.push_back(job->tokens(layer_->description.routing.seed));
  }
  const absl::Status status = layer_->gate->Route(
      hidden_states_->data(), environment_->activation_dtype, requests, &scratch, &routed_);
  if (!status.ok()) {
    FailAll(status, "gate");
    return;
  }
  LayerLoadCounters& load = *layer_->load;
  load.tokens.fetch_add(rows_, std::memory_order_relaxed);
  for (const uint32_t expert : routed_.expert_ids) {
    load.assignments[expert].fetch_add(1, std::memory_order_relaxed);
  }
  environment_->metrics->dropped_assignments.Increment(static_cast<double>(routed_.dropped.size()));
}

void BatchRun::DispatchAll() {
  const std::shared_ptr<const Placement> placement = environment_->fleet->placement();
  const std::vector<ExpertReplicas>* replicas = placement->Layer(layer_->description.layer);
  EXPERTMESH_CHECK(replicas != nullptr);
  thread_local std::vector<uint32_t> rows;
  rows.resize(rows_);
  std::iota(rows.begin(), rows.end(), 0);
  BatchPlan& plan =
      Plan(*replicas, {rows, routed_.token_begin, routed_.expert_ids, routed_.weights});
  environment_->metrics->batch_nodes.Observe(static_cast<double>(plan.nodes.size()));
  environment_->metrics->planned_tokens.Increment(rows_);
  environment_->metrics->token_transfers.Increment(static_cast<double>(plan.transfers));
  environment_->metrics->uniform_token_transfers.Increment(plan.uniform_transfers);
  dispatched_at_ = environment_->clock->Now();
  Dispatch(plan, placement, nullptr);
}

void BatchRun::ComputeShared() {
  if (layer_->shared_expert == nullptr || AllAnswered()) {
    return;
  }
  shared_output_.Resize(size_t{rows_} * environment_->d_model * sizeof(float));
  std::vector<uint32_t> row_begin(rows_ + 1);
  std::iota(row_begin.begin(), row_begin.end(), 0);
  const std::vector<const PackedExpert*> experts(rows_, layer_->shared_expert.get());
  std::vector<float> weights(rows_, 1.0f);
  if (layer_->shared_gate != nullptr) {
    layer_->shared_gate->Weights(hidden_states_->data(), environment_->activation_dtype,
                                 absl::MakeSpan(weights));
  }
  GroupedBatch batch;
  batch.hidden_states = hidden_states_->data();
  batch.rows = rows_;
  batch.d_model = environment_->d_model;
  batch.row_begin = row_begin;
  batch.experts = experts;
  batch.weights = weights;
  batch.partials = shared_output_.as<float>();
  const absl::Status status = environment_->backend->Compute(batch);
  if (!status.ok()) {
    FailAll(status, "shared experts");
  }
}

BatchPlan& BatchRun::Plan(const std::vector<ExpertReplicas>& replicas,
                          const Assignments& assignments) const {
  thread_local Planner planner;
  return planner.Plan(
      replicas, assignments, [this](NodeIndex node) { return LoadOf(node); },
      environment_->node_plans);
}

NodeLoad BatchRun::LoadOf(NodeIndex node) const {
  const std::shared_ptr<NodeLink> link = environment_->fleet->node(node);
  if (link == nullptr) {
    return {};
  }
  NodeLoad load = link->Load();
  const uint64_t row_bytes = environment_->d_model * sizeof(float);
  const uint32_t limit =
      static_cast<uint32_t>(std::max<uint64_t>(1, environment_->max_node_batch_bytes / row_bytes));
  load.max_batch_rows = load.max_batch_rows == 0 ? limit : std::min(load.max_batch_rows, limit);
  return load;
}

void BatchRun::Dispatch(BatchPlan& plan, const std::shared_ptr<const Placement>& placement,
                        const Part* replaces) {
  uint64_t epoch = epoch_.load();
  while (epoch < placement->epoch() && !epoch_.compare_exchange_weak(epoch, placement->epoch())) {
  }
  if (!plan.unplaced.empty()) {
    FailUnplaced(plan.unplaced, replaces == nullptr ? absl::OkStatus() : replaces->why_lost);
  }
  for (NodePlan& node_plan : plan.nodes) {
    // Rows of requests that have been answered by now need not travel; a plan of only such rows is
    // dropped.
    const bool wanted =
        std::any_of(node_plan.rows.begin(), node_plan.rows.end(),
                    [this](uint32_t row) { return !jobs_[JobOfRow(row)]->answered(); });
    if (!wanted) {
      continue;
    }
    if (!environment_->strict) {
      Send(std::move(node_plan), placement, replaces);
      continue;
    }
    // Planned by rows, but answered by assignments.
    const uint32_t limit = LoadOf(node_plan.node).max_batch_rows;
    for (NodePlan& piece : CutToAssignments(std::move(node_plan), limit)) {
      Send(std::move(piece), placement, replaces);
    }
  }
}

void BatchRun::Send(NodePlan plan, const std::shared_ptr<const Placement>& placement,
                    const Part* replaces) {
  auto part = std::make_shared<Part>();
  part->placement = placement;
  if (replaces != nullptr) {
    part->lost_by = replaces->lost_by;
    part->refused_by = replaces->refused_by;
    part->attempt = replaces->attempt + 1;
  }
  part->batch = std::make_shared<NodeBatch>();
  NodeBatch& batch = *part->batch;
  batch.layer = layer_->description.layer;
  batch.d_model = environment_->d_model;
  batch.plan = std::move(plan);
  batch.per_assignment = environment_->strict;
  batch.partials.Resize(batch.answer_rows() * environment_->d_model * sizeof(float));
  batch.done = [self = shared_from_this(), part](const absl::Status& status, bool lost) {
    self->OnPartDone(part, status, lost);
  };
  AddWork();
  const std::shared_ptr<NodeLink> link = environment_->fleet->node(batch.plan.node);
  if (link == nullptr) {
    batch.done = nullptr;
    OnPartDone(part, absl::UnavailableError("the node has left the mesh"), true);
    return;
  }
  const uint64_t node_limit = link->MaxFrameBytes();
  const uint64_t limit = node_limit == 0 ? environment_->max_frame_bytes
                                         : std::min(environment_->max_frame_bytes, node_limit);
  const WireEncoding encoding = link->encoding();
  batch.partials_dtype = encoding.partials;
  const uint64_t batch_id = link->NextBatchId();
  link->Send(batch_id, part->batch,
             EncodeFrames(batch.plan, batch_id, placement->epoch(), encoding, limit));
}

void BatchRun::OnPartDone(const std::shared_ptr<Part>& part, const absl::Status& status,
                          bool lost) {
  if (status.ok()) {
    absl::MutexLock lock(&mutex_);
    contributions_.push_back(part);
  } else if (lost && part->attempt < environment_->max_attempts && !AllAnswered()) {
    part->why_lost = status;
    (absl::IsFailedPrecondition(status) ? part->refused_by : part->lost_by)
        .insert(part->batch->plan.node);
    AddWork();
    environment_->pool->Run([self = shared_from_this(), part] {
      self->PlanAnew(part);
      self->WorkDone();
    });
  } else {
    FailRows(part->batch->plan.rows, status);
  }
  WorkDone();
}

void BatchRun::Narrow(const Part& part, ExpertReplicas* replicas) {
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

void BatchRun::PlanAnew(const std::shared_ptr<Part>& part) {
  const NodePlan& plan = part->batch->plan;
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
  Dispatch(Plan(replicas, assignments), placement, part.get());
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

void BatchRun::FailAll(const absl::Status& status, absl::string_view stage) {
  for (const ForwardJobPtr& job : jobs_) {
    job->Fail(absl::Status(status.code(), absl::StrCat(stage, ": ", status.message())));
  }
}

void BatchRun::FailRows(const std::vector<uint32_t>& rows, const absl::Status& status) {
  std::set<size_t> jobs;
  for (const uint32_t row : rows) {
    jobs.insert(JobOfRow(row));
  }
  for (const size_t job : jobs) {
    jobs_[job]->Fail(status);
  }
}

size_t BatchRun::JobOfRow(uint32_t row) const {
  const auto after = std::upper_bound(first_row_of_job_.begin(), first_row_of_job_.end(), row);
  return static_cast<size_t>(after - first_row_of_job_.begin()) - 1;
}

absl::Time BatchRun::LatestDeadline() const {
  absl::Time latest = absl::InfinitePast();
  for (const ForwardJobPtr& job : jobs_) {
    if (!job->answered()) {
      latest = std::max(latest, job->deadline);
    }
  }
  return latest == absl::InfinitePast() ? environment_->clock->Now() : latest;
}

bool BatchRun::AllAnswered() const {
  return std::all_of(jobs_.begin(), jobs_.end(),
                     [](const ForwardJobPtr& job) { return job->answered(); });
}

void BatchRun::WorkDone() {
  if (work_.fetch_sub(1, std::memory_order_acq_rel) != 1) {
    return;
  }
  if (inline_) {
    Finish();
  } else {
    environment_->pool->Run([self = shared_from_this()] { self->Finish(); });
  }
}

void BatchRun::Finish() {
  if (!AllAnswered()) {
    CombineAndAnswer();
  }
  on_finished_();
}

}  // namespace expertmesh
