#include "router_service/batch/batch_run.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "common/telemetry/logging.h"
#include "router_service/batch/gather_stage.h"
#include "router_service/batch/retry_stage.h"
#include "router_service/batch/stage_record.h"

namespace expertmesh::batch {

void BatchRun::Run(std::shared_ptr<BatchRun> run, const BatchEnvironment* environment,
                   const LayerRuntime* layer, std::vector<ForwardJobPtr>* jobs) {
  BatchRun* const self = run.get();
  self->self_ = std::move(run);
  self->batch_.environment = environment;
  self->batch_.layer = layer;
  self->batch_.requests.Assign(jobs);
  self->batch_.times = {};
  self->batch_.times.closed = environment->clock->Now();
  self->batch_.lead = LeadOf(*environment, self->batch_.requests);
  self->inline_ = self->batch_.requests.rows() <= environment->inline_tokens;
  self->work_ = 1;  // Start itself.
  {
    absl::MutexLock lock(&self->mutex_);
    self->dispatching_ = true;
  }
  if (self->inline_) {
    self->Start();
  } else {
    environment->pool->Run([self] { self->Start(); });
  }
}

void BatchRun::Start() {
  batch_.view = batch_.environment->fleet->view();
  if (!batch_.requests.AllAnswered()) {
    GatherRows(&batch_);
    if (const absl::Status status = route_.Run(&batch_); !status.ok()) {
      batch_.requests.FailAll(status, "gate");
    }
    batch_.times.routed = batch_.environment->clock->Now();
  }
  const bool wanted = !batch_.requests.AllAnswered();
  if (wanted) {
    const std::optional<plan::SharedDemand> shared = shared_.Begin(batch_);
    plan::BatchPlan& plan = plan_.PlanAll(batch_, shared);
    if (shared.has_value()) {
      shared_.Keep(batch_, plan_.shared_rows_here());
    }
    batch_.times.dispatched = batch_.environment->clock->Now();
    dispatch_.Dispatch(batch_, &plan, batch_.view, nullptr, this, &work_);
    batch_.environment->cross_checker->Offer(
        batch_.layer_index(), *batch_.view, batch_.routed, batch_.hidden_states->data(),
        batch_.environment->activation_dtype, batch_.environment->d_model);
  }
  EndDispatch();
  if (wanted && shared_.has_rows()) {
    if (inline_) {
      RunOnPool([this] { ComputeShared(); });
    } else {
      ComputeShared();
    }
  }
  // Never ends here: the end begins the next batch of the layer, whose Start must not be inside
  // this.
  WorkDone(/*finish_here=*/false);
}

void BatchRun::ComputeShared() {
  if (const absl::Status status = shared_.Run(batch_); !status.ok()) {
    batch_.requests.FailAll(status, "shared experts");
  }
}

void BatchRun::OnPartDone(BatchPart* part, const absl::Status& status) {
  part->done = batch_.environment->clock->Now();
  part->outcome = status;
  if (!AsksAgain(batch_, status, part)) {
    WorkDone(inline_);
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    lost_.push_back(part);
    if (dispatching_) {
      return;
    }
    dispatching_ = true;
  }
  RunOnPool([this] { DispatchLost(); });
}

void BatchRun::EndDispatch() {
  {
    absl::MutexLock lock(&mutex_);
    dispatching_ = !lost_.empty();
    if (!dispatching_) {
      return;
    }
  }
  RunOnPool([this] { DispatchLost(); });
}

void BatchRun::DispatchLost() {
  for (;;) {
    BatchPart* part = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (lost_.empty()) {
        dispatching_ = false;
        return;
      }
      part = lost_.back();
      lost_.pop_back();
    }
    // The mesh of now: it is likely to know that a node is gone.
    const std::shared_ptr<const mesh::MeshView> view = batch_.environment->fleet->view();
    plan::BatchPlan& plan = plan_.PlanAgain(batch_, *part, *view, ReplicasFor(*part, *view));
    shared_.TakeLost(batch_, &plan.unplaced);
    dispatch_.Dispatch(batch_, &plan, view, part, this, &work_);
    if (const absl::Status status = shared_.RunLost(batch_); !status.ok()) {
      batch_.requests.FailAll(status, "shared experts");
    }
    WorkDone(/*finish_here=*/false);
  }
}

template <typename Work>
void BatchRun::RunOnPool(Work work) {
  work_.fetch_add(1, std::memory_order_relaxed);
  batch_.environment->pool->Run([this, work] {
    work();
    WorkDone(inline_);
  });
}

void BatchRun::WorkDone(bool finish_here) {
  if (work_.fetch_sub(1, std::memory_order_acq_rel) != 1) {
    return;
  }
  if (finish_here) {
    Finish();
  } else {
    batch_.environment->pool->Run([this] { Finish(); });
  }
}

void BatchRun::Finish() {
  JudgeDoubtful(batch_, dispatch_.parts(),
                [this](uint32_t row) { return shared_.IsFiniteHere(batch_, row); });
  if (!batch_.requests.AllAnswered()) {
    batch_.times.received = batch_.environment->clock->Now();
    combine_.Collect(batch_, dispatch_.parts(), shared_.output());
    CheckSum();
    answer_.Run(batch_, combine_);
    RecordStages(batch_);
    uint64_t node_us = 0;
    uint64_t slowest_us = 0;
    for (BatchPart* const part : combine_.contributing()) {
      node_us += part->report.compute_us;
      slowest_us = std::max(slowest_us, part->report.compute_us);
      batch_.environment->node_plans->Recycle(std::move(part->plan));
    }
    batch_.layer->load->AddNodeTime(node_us);
    if (batch_.environment->recorder != nullptr) {
      batch_.environment->recorder->Add(
          {batch_.layer_index(), batch_.view->epoch(),
           batch_.environment->clock->Now() - batch_.times.closed, slowest_us},
          batch_.routed);
    }
  }
  trace_.Run(batch_, dispatch_.parts());
  const BatchEnvironment* const environment = batch_.environment;
  const LayerRuntime* const layer = batch_.layer;
  const uint64_t tokens = batch_.requests.rows();
  const absl::Time closed_at = batch_.times.closed;
  std::shared_ptr<BatchRun> self = std::move(self_);
  self.reset();  // From here on it may serve another batch.
  environment->on_finished(layer, tokens, closed_at);
}

void BatchRun::CheckSum() {
  if (!batch_.layer->load->TakeSample(SumCheck::kOneIn)) {
    return;
  }
  const BatchRequests& requests = batch_.requests;
  const absl::Status status = sum_check_.Run(
      batch_.routed, batch_.layer->description.routing.num_experts,
      *batch_.view->placement().Layer(batch_.layer_index()), combine_.contributing(),
      [&](uint32_t row) { return !requests.jobs()[requests.RequestOfRow(row)]->answered(); });
  batch_.environment->metrics->CountSumCheck(status.ok());
  if (!status.ok()) {
    const telemetry::LogTrace trace(TraceOf(batch_));
    spdlog::error("layer {}: a check of the router itself failed: {}", batch_.layer_index(),
                  std::string(status.message()));
    batch_.requests.FailAll(status, "sum");
  }
}

void BatchRun::Recycle() {
  batch_.view.reset();
  batch_.requests.Clear();
  batch_.lead = nullptr;
  batch_.hidden_states.reset();
  dispatch_.Clear();
  shared_.Clear();
  combine_.Clear();
}

size_t BatchRun::MemoryBytes() const {
  const gate::RoutedTokens& routed = batch_.routed;
  const auto bytes = [](const auto&... of) { return ((of.capacity() * sizeof(of[0])) + ...); };
  return sizeof(*this) + batch_.requests.MemoryBytes() +
         bytes(routed.token_begin, routed.expert_ids, routed.weights, routed.dropped) +
         route_.MemoryBytes() + plan_.MemoryBytes() + dispatch_.MemoryBytes() +
         shared_.MemoryBytes() + combine_.MemoryBytes() + sum_check_.MemoryBytes() +
         answer_.MemoryBytes() + trace_.MemoryBytes();
}

}  // namespace expertmesh::batch
