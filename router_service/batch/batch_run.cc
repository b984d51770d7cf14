#include "router_service/batch/batch_run.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/wire/tensor_copy.h"
#include "common/wire/tensor_encode.h"
#include "router_service/plan/cut_plan.h"

namespace expertmesh::batch {
void BatchPart::Done(const absl::Status& status, bool lost) { run->OnPartDone(this, status, lost); }

void BatchPart::Recycle() {
  partials.reset();
  received = 0;
  nonfinite_rows.clear();
  queue_us = 0;
  compute_us = 0;
  run = nullptr;
  placement.reset();
  lost_by.clear();
  refused_by.clear();
  attempt = 1;
  why_lost = absl::OkStatus();
  contributes = false;
  doubtful_rows.clear();
  second_opinion = false;
}

size_t BatchPart::MemoryBytes() const {
  // The plan of a part that was lost is still here; others gave theirs back.
  return sizeof(*this) + plan.rows.capacity() * 2 * sizeof(uint32_t) +
         plan.expert_ids.capacity() * (sizeof(uint32_t) + sizeof(float)) +
         (nonfinite_rows.capacity() + doubtful_rows.capacity()) * sizeof(uint32_t);
}

void BatchRun::Run(std::shared_ptr<BatchRun> run, const RunEnvironment* environment,
                   const LayerRuntime* layer, std::vector<ForwardJobPtr>* jobs) {
  BatchRun* const self = run.get();
  self->self_ = std::move(run);
  self->environment_ = environment;
  self->layer_ = layer;
  self->jobs_.swap(*jobs);
  self->tokens_ = RowsOf(self->jobs_);
  self->closed_at_ = environment->clock->Now();
  self->inline_ = self->tokens_ <= environment->inline_tokens;
  self->work_ = 1;  // Start itself.
  if (self->inline_ && !PlanningScope::planning) {
    self->Start();
  } else {
    environment->pool->Run([self] { self->Start(); });
  }
}

void BatchRun::Recycle() {
  jobs_.clear();
  rows_ = 0;
  first_row_of_job_.clear();
  requests_.clear();
  hidden_states_.reset();
  shared_output_.reset();
  epoch_ = 0;
  {
    absl::MutexLock lock(&mutex_);
    parts_.clear();
  }
  contributions_.clear();
}

size_t BatchRun::MemoryBytes() const {
  const auto bytes = [](const auto&... of) { return ((of.capacity() * sizeof(of[0])) + ...); };
  size_t routing = spare_routing_ == nullptr ? 0 : spare_routing_->SpaceUsedLong();
  routing += response_.has_routing() ? response_.routing().SpaceUsedLong() : 0;
  return sizeof(*this) + routing +
         bytes(jobs_, first_row_of_job_, requests_, routed_.token_begin, routed_.expert_ids,
               routed_.weights, routed_.dropped, shared_row_begin_, shared_experts_,
               shared_weights_, contributions_, by_row_, by_assignment_, slot_partials_.of_slot);
}

void BatchRun::Start() {
  const PlanningScope planning;
  if (!AllAnswered()) {
    GatherRows();
    Route();
  }
  if (!AllAnswered()) {
    DispatchAll();
    if (inline_ && layer_->shared_expert != nullptr) {
      AddWork();
      environment_->pool->Run([this] {
        ComputeShared();
        WorkDone();
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
    environment_->metrics->queue_seconds.Observe(
        absl::ToDoubleSeconds(closed_at_ - job->arrival()));
  }
  const size_t row_bytes = environment_->d_model * BytesOf(environment_->activation_dtype);
  hidden_states_ = environment_->buffers->Take(rows_ * row_bytes);
  uint64_t nonfinite = 0;
  for (size_t i = 0; i < jobs_.size(); ++i) {
    nonfinite += CopyRows(jobs_[i]->hidden_states(), environment_->activation_dtype,
                          hidden_states_->data() + first_row_of_job_[i] * row_bytes);
  }
  environment_->metrics->nonfinite_tokens.Increment(static_cast<double>(nonfinite));
  environment_->metrics->batch_tokens.Observe(rows_);
}

void BatchRun::Route() {
  thread_local gate::GateScratch scratch;
  for (const ForwardJobPtr& job : jobs_) {
    requests_.push_back(job->tokens(layer_->description.routing.seed));
  }
  const absl::Status status =
      layer_->gate->Route(hidden_states_->data(), environment_->activation_dtype, requests_,
                          &scratch, &routed_, environment_->pool);
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
  const std::shared_ptr<const mesh::Placement> placement = environment_->fleet->placement();
  const std::vector<mesh::ExpertReplicas>* replicas = placement->Layer(layer_->description.layer);
  EXPERTMESH_CHECK(replicas != nullptr);
  thread_local std::vector<uint32_t> rows;
  rows.resize(rows_);
  std::iota(rows.begin(), rows.end(), 0);
  plan::BatchPlan& plan =
      Plan(*replicas, {rows, routed_.token_begin, routed_.expert_ids, routed_.weights});
  environment_->metrics->batch_nodes.Observe(static_cast<double>(plan.nodes.size()));
  environment_->metrics->planned_tokens.Increment(rows_);
  environment_->metrics->token_transfers.Increment(static_cast<double>(plan.transfers));
  environment_->metrics->uniform_token_transfers.Increment(plan.uniform_transfers);
  dispatched_at_ = environment_->clock->Now();
  Dispatch(plan, placement, nullptr);
  environment_->cross_checker->Offer(layer_->description.layer, *placement, routed_,
                                     hidden_states_->data(), environment_->activation_dtype,
                                     environment_->d_model);
}

void BatchRun::ComputeShared() {
  if (layer_->shared_expert == nullptr || AllAnswered()) {
    return;
  }
  shared_output_ =
      environment_->buffers->Take(size_t{rows_} * environment_->d_model * sizeof(float));
  shared_row_begin_.resize(rows_ + 1);
  std::iota(shared_row_begin_.begin(), shared_row_begin_.end(), 0);
  shared_experts_.assign(rows_, layer_->shared_expert.get());
  shared_weights_.assign(rows_, 1.0f);
  if (layer_->shared_gate != nullptr) {
    layer_->shared_gate->Weights(hidden_states_->data(), environment_->activation_dtype,
                                 absl::MakeSpan(shared_weights_));
  }
  experts::GroupedBatch batch;
  batch.hidden_states = hidden_states_->data();
  batch.rows = rows_;
  batch.d_model = environment_->d_model;
  batch.row_begin = shared_row_begin_;
  batch.experts = shared_experts_;
  batch.weights = shared_weights_;
  batch.partials = shared_output_->as<float>();
  const absl::Status status = experts::Compute(*environment_->backend, batch);
  if (!status.ok()) {
    FailAll(status, "shared experts");
  }
}

plan::BatchPlan& BatchRun::Plan(const std::vector<mesh::ExpertReplicas>& replicas,
                                const plan::Assignments& assignments) const {
  thread_local plan::Planner planner;
  return planner.Plan(
      replicas, assignments, [this](mesh::NodeIndex node) { return LoadOf(node); },
      environment_->node_plans);
}

plan::NodeLoad BatchRun::LoadOf(mesh::NodeIndex node) const {
  const std::shared_ptr<mesh::NodeLink> link = environment_->fleet->node(node);
  if (link == nullptr) {
    return {};
  }
  plan::NodeLoad load = link->Load();
  const uint64_t row_bytes = environment_->d_model * sizeof(float);
  const uint32_t limit =
      static_cast<uint32_t>(std::max<uint64_t>(1, environment_->max_node_batch_bytes / row_bytes));
  load.max_batch_rows = load.max_batch_rows == 0 ? limit : std::min(load.max_batch_rows, limit);
  return load;
}

void BatchRun::Dispatch(plan::BatchPlan& plan,
                        const std::shared_ptr<const mesh::Placement>& placement,
                        const BatchPart* replaces) {
  uint64_t epoch = epoch_.load();
  while (epoch < placement->epoch() && !epoch_.compare_exchange_weak(epoch, placement->epoch())) {
  }
  if (!plan.unplaced.empty()) {
    FailUnplaced(plan.unplaced, replaces == nullptr ? absl::OkStatus() : replaces->why_lost);
  }
  for (plan::NodePlan& node_plan : plan.nodes) {
    // Rows of requests that have been answered by now need not travel; a plan of only such rows is
    // dropped.
    const bool wanted =
        std::any_of(node_plan.rows.begin(), node_plan.rows.end(),
                    [this](uint32_t row) { return !jobs_[JobOfRow(row)]->answered(); });
    if (!wanted) {
      continue;
    }
    thread_local std::vector<plan::NodePlan> pieces;
    pieces.push_back(std::move(node_plan));
    CutForAnswers(&pieces);
    for (plan::NodePlan& piece : pieces) {
      SendAsItFits(std::move(piece), placement, replaces);
    }
    pieces.clear();
  }
}

void BatchRun::CutForAnswers(std::vector<plan::NodePlan>* pieces) const {
  if (!environment_->strict) {
    return;
  }
  // Planned by rows, but answered by assignments.
  plan::NodePlan whole = std::move(pieces->back());
  pieces->pop_back();
  const uint32_t limit = LoadOf(whole.node).max_batch_rows;
  plan::CutToAssignments(std::move(whole), limit, environment_->node_plans, pieces);
}

std::shared_ptr<BatchPart> BatchRun::MakePart(
    plan::NodePlan plan, const std::shared_ptr<const mesh::Placement>& placement,
    const BatchPart* replaces) {
  std::shared_ptr<BatchPart> part = environment_->parts->Take();
  part->run = this;
  part->placement = placement;
  if (replaces != nullptr) {
    part->lost_by = replaces->lost_by;
    part->refused_by = replaces->refused_by;
    part->attempt = replaces->attempt + 1;
    const bool doubted = !replaces->doubtful_rows.empty() && replaces->plan.node != plan.node;
    part->second_opinion = doubted || replaces->second_opinion;
  }
  part->layer = layer_->description.layer;
  part->d_model = environment_->d_model;
  part->plan = std::move(plan);
  part->per_assignment = environment_->strict;
  absl::MutexLock lock(&mutex_);
  parts_.push_back(part);
  return part;
}

void BatchRun::SendAsItFits(plan::NodePlan plan,
                            const std::shared_ptr<const mesh::Placement>& placement,
                            const BatchPart* replaces) {
  const std::shared_ptr<mesh::NodeLink> link = environment_->fleet->node(plan.node);
  const DType activation = environment_->activation_dtype;
  const DType narrow = link == nullptr ? activation : link->encoding().hidden_states;
  std::vector<uint32_t> beyond;
  if (IsLossy(activation, narrow) && IsActivationDType(narrow)) {
    beyond = RowsBeyond(plan, narrow);
  }
  if (!beyond.empty()) {
    // Apart from the others, whose bits shall not depend on them.
    plan::NodePlan wide = plan::TakeRows(beyond, environment_->node_plans, &plan);
    Send(std::move(wide), link, activation, placement, replaces);
  }
  if (!plan.rows.empty()) {
    Send(std::move(plan), link, narrow, placement, replaces);
  }
}

void BatchRun::Send(plan::NodePlan plan, const std::shared_ptr<mesh::NodeLink>& link,
                    DType hidden_states, const std::shared_ptr<const mesh::Placement>& placement,
                    const BatchPart* replaces) {
  const std::shared_ptr<BatchPart> part = MakePart(std::move(plan), placement, replaces);
  AddWork();
  if (link == nullptr) {
    OnPartDone(part.get(), absl::UnavailableError("the node has left the mesh"), true);
    return;
  }
  const uint64_t node_limit = link->MaxFrameBytes();
  const uint64_t limit = node_limit == 0 ? environment_->max_frame_bytes
                                         : std::min(environment_->max_frame_bytes, node_limit);
  mesh::WireEncoding encoding = link->encoding();
  encoding.hidden_states = hidden_states;
  part->partials_dtype = encoding.partials;
  part->kept_dtype = IsActivationDType(encoding.partials) ? encoding.partials : DType::kF32;
  part->partials = environment_->buffers->Take(part->answer_rows() * environment_->d_model *
                                               BytesOf(part->kept_dtype));
  const uint64_t batch_id = link->NextBatchId();
  thread_local std::vector<Frame> frames;
  EncodeFrames(part->plan, batch_id, placement->epoch(), encoding, limit, &frames);
  link->Send(batch_id, part, absl::MakeSpan(frames));
  frames.clear();
}

void BatchRun::OnPartDone(BatchPart* part, const absl::Status& status, bool lost) {
  if (status.ok()) {
    if (!AskElsewhere(part)) {
      part->contributes = true;
    }
  } else if (lost && part->attempt < environment_->max_attempts && !AllAnswered()) {
    part->why_lost = status;
    // Who is there may be asked again when nobody else can.
    const bool is_there = absl::IsFailedPrecondition(status) || absl::IsDataLoss(status);
    (is_there ? part->refused_by : part->lost_by).insert(part->plan.node);
    AddWork();
    environment_->pool->Run([this, part] {
      PlanAnew(part);
      WorkDone();
    });
  } else {
    FailRows(part->plan.rows, status);
  }
  WorkDone();
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
      latest = std::max(latest, job->deadline());
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
    environment_->pool->Run([this] { Finish(); });
  }
}

void BatchRun::Finish() {
  JudgeDoubtful();
  if (!AllAnswered()) {
    CombineAndAnswer();
  }
  const RunEnvironment* const environment = environment_;
  const LayerRuntime* const layer = layer_;
  const uint64_t tokens = tokens_;
  const absl::Time closed_at = closed_at_;
  std::shared_ptr<BatchRun> self = std::move(self_);
  self.reset();  // From here on it may serve another batch.
  environment->on_finished(layer, tokens, closed_at);
}

}  // namespace expertmesh::batch
