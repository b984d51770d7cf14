#include "router_service/moves/placement_move.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace expertmesh::moves {
namespace {

constexpr absl::Duration kLongestRepairPause = absl::Minutes(1);
// Between two steps that nothing happens between.
constexpr absl::Duration kShortestPause = absl::Milliseconds(1);
// A list of all that a large mesh waits for helps no one.
constexpr size_t kMostWaits = 240;

// Every copy that is there of experts that `target` speaks of and `in_force` does not.
CompiledPlanPtr Established(const CompiledPlan& target, const CompiledPlan* in_force,
                            const NodeTable& nodes) {
  CompiledPlan::Copies copies;
  for (const auto& [key, named] : target.copies()) {
    if (in_force != nullptr && in_force->CopiesOf(key) != nullptr) {
      continue;
    }
    std::vector<NamedCopy> there;
    for (const auto& [node_id, node] : nodes.nodes()) {
      if (nodes.HasCopy(node_id, key)) {
        there.push_back({node_id, 0});
      }
    }
    for (NamedCopy& copy : there) {
      copy.share = 1.0f / static_cast<float>(there.size());
    }
    if (!there.empty()) {
      copies[key] = std::move(there);
    }
  }
  return CompiledPlan::FromCopies(std::move(copies));
}

}  // namespace

PlacementMove::PlacementMove(MoverOptions options, ExpertSizes sizes)
    : options_(options), nodes_(options, std::move(sizes)) {}

absl::Status PlacementMove::Adopt(PlanPtr plan) {
  if (phase_ != MovePhase::kIdle && !progress_.repair) {
    return absl::FailedPreconditionError("a move is under way; wait for its end, or abort it");
  }
  CompiledPlanPtr compiled;
  if (plan != nullptr) {
    ASSIGN_OR_RETURN(compiled, CompiledPlan::Make(std::move(plan)));
  }
  in_force_ = std::move(compiled);
  established_ = CompiledPlan::FromCopies({});
  phase_ = MovePhase::kIdle;
  return absl::OkStatus();
}

absl::Status PlacementMove::Start(PlanPtr plan, absl::Time now,
                                  const std::vector<NodeState>& nodes) {
  if (phase_ != MovePhase::kIdle && !progress_.repair) {
    return absl::FailedPreconditionError(
        absl::StrCat("a move is under way (", NameOf(phase_), "); wait for its end, or abort it"));
  }
  ASSIGN_OR_RETURN(CompiledPlanPtr target, CompiledPlan::Make(std::move(plan)));
  now_ = now;
  for (const Verdict& verdict : nodes_.Refresh(now, nodes)) {
    OnVerdict(verdict);
  }
  for (const auto& [node_id, node] : nodes_.nodes()) {
    if (target->On(node_id).empty()) {
      continue;
    }
    uint64_t bytes = nodes_.OtherBytes(node_id);
    for (const ExpertKey& key : target->On(node_id)) {
      bytes += nodes_.BytesOf(node_id, key);
    }
    if (node.state.limit_bytes > 0 && bytes > node.state.limit_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "plan: node ", node_id, " would hold about ", bytes, " bytes, and its limit is ",
          node.state.limit_bytes, "; give it fewer experts, or raise its --memory-limit-bytes"));
    }
  }
  established_ = Established(*target, in_force_.get(), nodes_);
  failed_repairs_ = 0;
  Begin(std::move(target), /*repair=*/false);
  return absl::OkStatus();
}

void PlacementMove::Begin(CompiledPlanPtr target, bool repair) {
  target_ = std::move(target);
  loaded_.clear();
  freed_.clear();
  given_up_.clear();
  failure_ = absl::OkStatus();
  const MoveProgress before = progress_;
  progress_ = {};
  progress_.moves_completed = before.moves_completed;
  progress_.moves_failed = before.moves_failed;
  progress_.repairs_completed = before.repairs_completed;
  progress_.repair = repair;
  progress_.started = now_;
  CountLoaded(Missing(*target_));
  EnterPhase(MovePhase::kLoading);
}

void PlacementMove::Confirm(uint64_t switch_id) {
  confirmed_ = confirmed_ || switch_id == switch_id_;
}

absl::Status PlacementMove::Abort(const absl::Status& why) {
  const bool can = !progress_.repair && failure_.ok() &&
                   (phase_ == MovePhase::kLoading || phase_ == MovePhase::kSwitching);
  if (!can) {
    return absl::FailedPreconditionError(absl::StrCat("no move can be undone now (", NameOf(phase_),
                                                      "); to go back, move to the plan before"));
  }
  failure_ = why;
  return absl::OkStatus();
}

void PlacementMove::Resign() {
  nodes_.Forget();
  in_force_ = target_ = switching_to_ = nullptr;
  established_ = CompiledPlan::FromCopies({});
  ++switch_id_;  // A confirmation that still comes is of no interest.
  confirmed_ = fenced_ = false;
  failure_ = absl::OkStatus();
  phase_ = MovePhase::kIdle;
}

void PlacementMove::Answer(uint64_t call_id, const absl::Status& status, uint64_t weights_bytes,
                           absl::Time now) {
  now_ = now;
  OnVerdict(nodes_.Answer(call_id, status, weights_bytes, now));
}

void PlacementMove::OnVerdict(const Verdict& verdict) {
  switch (verdict.kind) {
    case Verdict::Kind::kOk:
      return;
    case Verdict::Kind::kAgain:
      progress_.last_error = verdict.status;
      return;
    case Verdict::Kind::kFenced:
      progress_.last_error = verdict.status;
      fenced_ = true;
      return;
    case Verdict::Kind::kFailed:
      progress_.last_error = verdict.status;
      given_up_.insert(verdict.node_id);
      if (phase_ == MovePhase::kLoading && failure_.ok()) {
        failure_ = verdict.status;
      }
      return;
  }
}

MoveActions PlacementMove::Step(absl::Time now, const std::vector<NodeState>& nodes) {
  now_ = now;
  actions_ = {};
  progress_.waits_for.clear();
  for (const Verdict& verdict : nodes_.Refresh(now, nodes)) {
    OnVerdict(verdict);
  }
  if (fenced_) {
    const absl::Status why = progress_.last_error;
    MoveOutcome outcome{progress_.repair, true, why, in_force()};
    Resign();
    progress_.ended = now;
    ++progress_.moves_failed;
    actions_.ended = std::move(outcome);
  } else {
    while (StepPhase()) {
    }
  }
  actions_.wake = std::max(actions_.wake, now + kShortestPause);
  return std::exchange(actions_, {});
}

bool PlacementMove::StepPhase() {
  if (!failure_.ok() && (phase_ == MovePhase::kLoading || phase_ == MovePhase::kSwitching)) {
    Fail(std::exchange(failure_, absl::OkStatus()));
    return actions_.ended == std::nullopt;
  }
  switch (phase_) {
    case MovePhase::kIdle:
      return StepIdle();
    case MovePhase::kLoading:
      return StepLoading();
    case MovePhase::kSwitching:
      return StepSwitching();
    case MovePhase::kUnloading:
      return StepUnloading();
    case MovePhase::kSwitchingBack:
      return StepSwitchingBack();
    case MovePhase::kUndoing:
      return StepUndoing();
  }
  return false;
}

bool PlacementMove::StepIdle() {
  if (in_force_ == nullptr || actions_.ended.has_value()) {
    return false;
  }
  target_ = in_force_;
  bool due = false;
  for (const auto& [node_id, keys] : Missing(*in_force_)) {
    due = due || nodes_.Ready(node_id);
  }
  for (const auto& [node_id, keys] : Extra()) {
    for (const ExpertKey& key : keys) {
      due = due || HasBackup(node_id, key);
    }
  }
  if (!due) {
    return false;
  }
  if (now_ < repair_not_before_) {
    WaitFor("the next attempt to bring nodes back to the plan", repair_not_before_);
    return false;
  }
  Begin(in_force_, /*repair=*/true);
  return true;
}

void PlacementMove::EnterPhase(MovePhase phase) {
  phase_ = progress_.phase = phase;
  phase_since_ = now_;
}

void PlacementMove::BeginSwitch(CompiledPlanPtr plan, MovePhase phase) {
  switching_to_ = std::move(plan);
  confirmed_ = false;
  actions_.switch_to = {++switch_id_, switching_to_ == nullptr ? nullptr : switching_to_->plan()};
  EnterPhase(phase);
}

void PlacementMove::End(const absl::Status& status) {
  actions_.ended = {progress_.repair, false, status, in_force()};
  actions_.wake = now_;  // Nodes may need repair.
  progress_.ended = now_;
  if (progress_.repair) {
    const bool failed = !status.ok() || !given_up_.empty();
    failed_repairs_ = failed ? std::min(failed_repairs_ + 1, 10) : 0;
    repair_not_before_ = now_ + (failed ? std::min(options_.retry_delay * (1 << failed_repairs_),
                                                   kLongestRepairPause)
                                        : options_.retry_delay);
    progress_.repairs_completed += failed ? 0 : 1;
  } else {
    progress_.moves_completed += status.ok() ? 1 : 0;
    progress_.moves_failed += status.ok() ? 0 : 1;
    repair_not_before_ = now_;
  }
  if (!status.ok()) {
    progress_.last_error = status;
  }
  EnterPhase(MovePhase::kIdle);
}

void PlacementMove::WaitFor(std::string what, absl::Time until) {
  actions_.wake = std::min(actions_.wake, until);
  std::string& waits = progress_.waits_for;
  if (waits.size() + what.size() <= kMostWaits) {
    waits += (waits.empty() ? "" : "; ") + what;
  }
}

MoveProgress PlacementMove::progress(absl::Time now) const {
  MoveProgress progress = progress_;
  progress.phase = phase_;
  const absl::Duration took =
      (phase_ == MovePhase::kIdle ? progress.ended : now) - progress.started;
  if (progress.bytes_done > 0 && took > absl::ZeroDuration() && took < absl::InfiniteDuration()) {
    progress.bytes_per_second =
        static_cast<double>(progress.bytes_done) / absl::ToDoubleSeconds(took);
  }
  return progress;
}

}  // namespace expertmesh::moves
