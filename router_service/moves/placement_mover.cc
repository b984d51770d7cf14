#include "router_service/moves/placement_mover.h"

#include <spdlog/spdlog.h>

#include <utility>
#include <vector>

#include "expertmesh/internal/v1/expert.pb.h"

namespace expertmesh::moves {

struct PlacementMover::Shared {
  Shared(const MoverOptions& options, ExpertSizes sizes, TimerQueue* timers, Clock* clock_of_timers,
         std::function<void()> step_now)
      : clock(clock_of_timers),
        step(std::move(step_now)),
        timer(timers),
        move(options, std::move(sizes)) {}

  void StepAt(absl::Time when) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (!closed && when < due) {
      due = when;
      timer.Set(when, step);
    }
  }
  void Answer(uint64_t call_id, const absl::Status& status, uint64_t weights_bytes) {
    absl::MutexLock lock(&mutex);
    if (!closed) {
      move.Answer(call_id, status, weights_bytes, clock->Now());
      StepAt(clock->Now());
    }
  }

  Clock* const clock;
  const std::function<void()> step;
  absl::Mutex mutex;
  bool closed ABSL_GUARDED_BY(mutex) = false;
  TimerSlot timer ABSL_GUARDED_BY(mutex);
  // When it steps next. What happens from the beginning of a step on is for another one.
  absl::Time due ABSL_GUARDED_BY(mutex) = absl::InfiniteFuture();
  uint64_t term ABSL_GUARDED_BY(mutex) = 0;
  PlacementMove move ABSL_GUARDED_BY(mutex);
};

namespace {

template <typename Request>
Request RequestFor(uint64_t term, const std::vector<ExpertKey>& keys) {
  Request request;
  request.set_term(term);
  for (const ExpertKey& key : keys) {
    const int last = request.experts_size() - 1;
    v1::HostedExperts* entry = last < 0 || request.experts(last).layer() != key.layer
                                   ? request.add_experts()
                                   : request.mutable_experts(last);
    entry->set_layer(key.layer);
    entry->add_experts(key.expert);
    entry->set_slice_count(1);
  }
  return request;
}

void LogEnd(const MoveOutcome& outcome) {
  const char* const what = outcome.repair ? "bringing nodes back to the plan" : "moving experts";
  if (outcome.status.ok()) {
    spdlog::info("{}: done", what);
  } else if (outcome.fenced) {
    spdlog::warn("{}: given up, since another router decides: {}", what,
                 std::string(outcome.status.message()));
  } else {
    spdlog::warn("{}: failed{}: {}", what, outcome.repair ? "" : ", and was undone",
                 std::string(outcome.status.message()));
  }
}

}  // namespace

PlacementMover::PlacementMover(MoverOptions options, ExpertSizes sizes, MovableNodes* nodes,
                               MoveOwner owner, TimerQueue* timers, Clock* clock)
    : nodes_(nodes),
      owner_(std::move(owner)),
      options_(options),
      clock_(clock),
      timers_(timers),
      shared_(
          std::make_shared<Shared>(options, std::move(sizes), timers, clock, [this] { Step(); })) {}

PlacementMover::~PlacementMover() {
  TimerQueue::Id begun = 0;
  {
    absl::MutexLock lock(&shared_->mutex);
    shared_->closed = true;
    begun = shared_->timer.CancelForGood();
  }
  timers_->AwaitEnd(begun);
}

absl::Status PlacementMover::Adopt(uint64_t term, PlanPtr plan) {
  absl::MutexLock lock(&shared_->mutex);
  absl::Status status = shared_->move.Adopt(std::move(plan));
  if (status.ok()) {
    shared_->term = term;
    shared_->StepAt(clock_->Now());
  }
  return status;
}

absl::Status PlacementMover::Start(uint64_t term, PlanPtr plan) {
  const std::vector<NodeState> nodes = nodes_->Nodes();
  absl::MutexLock lock(&shared_->mutex);
  absl::Status status = shared_->move.Start(std::move(plan), clock_->Now(), nodes);
  if (status.ok()) {
    shared_->term = term;
    const MoveProgress progress = shared_->move.progress(clock_->Now());
    spdlog::info("moving experts in term {}: {} new copies of about {} bytes", term,
                 progress.copies_all, progress.bytes_all);
    shared_->StepAt(clock_->Now());
  }
  return status;
}

void PlacementMover::Confirm(uint64_t switch_id) {
  absl::MutexLock lock(&shared_->mutex);
  shared_->move.Confirm(switch_id);
  shared_->StepAt(clock_->Now());
}

absl::Status PlacementMover::Abort(const absl::Status& why) {
  absl::MutexLock lock(&shared_->mutex);
  absl::Status status = shared_->move.Abort(why);
  shared_->StepAt(clock_->Now());
  return status;
}

void PlacementMover::Resign() {
  absl::MutexLock lock(&shared_->mutex);
  shared_->move.Resign();
}

void PlacementMover::OnNodesChanged() {
  absl::MutexLock lock(&shared_->mutex);
  shared_->StepAt(clock_->Now());
}

MoveProgress PlacementMover::progress() const {
  absl::MutexLock lock(&shared_->mutex);
  return shared_->move.progress(clock_->Now());
}

PlanPtr PlacementMover::in_force() const {
  absl::MutexLock lock(&shared_->mutex);
  return shared_->move.in_force();
}

void PlacementMover::Step() {
  {
    absl::MutexLock lock(&shared_->mutex);
    shared_->due = absl::InfiniteFuture();
  }
  const std::vector<NodeState> nodes = nodes_->Nodes();
  MoveActions actions;
  uint64_t term = 0;
  {
    absl::MutexLock lock(&shared_->mutex);
    actions = shared_->move.Step(clock_->Now(), nodes);
    term = shared_->term;
    shared_->StepAt(actions.wake);
  }
  for (const MoveActions::Call& call : actions.calls) {
    Send(term, call);
  }
  if (actions.switch_to.has_value()) {
    owner_.switch_plan(actions.switch_to->id, std::move(actions.switch_to->plan));
  }
  if (actions.ended.has_value()) {
    LogEnd(*actions.ended);
    owner_.on_end(*actions.ended);
  }
}

void PlacementMover::Send(uint64_t term, const MoveActions::Call& call) {
  const auto done = [shared = shared_, id = call.id](const auto& response) {
    shared->Answer(id, response.status(), response.ok() ? response->memory().weights_bytes() : 0);
  };
  if (call.kind == CallKind::kLoad) {
    nodes_->Load(call.node_id, RequestFor<internal::v1::LoadExpertsRequest>(term, call.keys),
                 options_.call_timeout, done);
  } else {
    nodes_->Unload(call.node_id, RequestFor<internal::v1::UnloadExpertsRequest>(term, call.keys),
                   options_.call_timeout, done);
  }
}

}  // namespace expertmesh::moves
