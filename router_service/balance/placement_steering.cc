#include "router_service/balance/placement_steering.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "router_service/balance/decision.h"

namespace expertmesh::balance_control {
namespace {

// In a proposal, so that its message stays small.
constexpr size_t kMostMoves = 1000;

// Without the plan and its moves.
v1::PlacementProposal Summarise(const balance::PlanningResult& result) {
  v1::PlacementProposal proto;
  proto.set_apply(result.decision == balance::PlanDecision::kApply);
  proto.set_reason(result.reason);
  for (const balance::LayerForecast& layer : result.layers) {
    v1::LayerForecast& written = *proto.add_layers();
    written.set_layer(layer.layer);
    written.set_fullest_over_mean(layer.FullestOverMean());
    const double mean = layer.mean > 0 ? layer.mean : 1;
    written.set_lower_bound(layer.mean > 0 ? layer.lower_bound / mean : 1);
    written.set_present_fullest_over_mean(layer.mean > 0 ? layer.present_fullest / mean : 1);
    written.set_changed(layer.changed);
  }
  proto.set_move_count(result.moves.size());
  proto.set_bytes_loaded(result.bytes_loaded);
  proto.set_bytes_freed(result.bytes_freed);
  proto.set_load_seconds(result.load_seconds);
  return proto;
}

v1::PlacementMoves ToProto(const moves::MoveProgress& progress) {
  v1::PlacementMoves proto;
  proto.set_phase(moves::NameOf(progress.phase));
  proto.set_waits_for(progress.waits_for);
  proto.set_copies_done(progress.copies_done);
  proto.set_copies_all(progress.copies_all);
  proto.set_bytes_done(progress.bytes_done);
  proto.set_bytes_all(progress.bytes_all);
  proto.set_bytes_per_second(progress.bytes_per_second);
  proto.set_last_error(std::string(progress.last_error.message()));
  proto.set_moves_completed(progress.moves_completed);
  proto.set_moves_failed(progress.moves_failed);
  proto.set_repairs_completed(progress.repairs_completed);
  return proto;
}

moves::ExpertSizes SizesOf(const SteeredModel& model) {
  moves::ExpertSizes sizes;
  for (const auto& [index, layer] : model.layers) {
    sizes[index] = layer.expert_parameters;
  }
  return sizes;
}

std::map<uint32_t, moves::LayerUnits> UnitsOf(const SteeredModel& model) {
  std::map<uint32_t, moves::LayerUnits> units;
  for (const auto& [index, layer] : model.layers) {
    units[index] = {layer.num_experts, layer.expert_parameters, layer.shared_parameters};
  }
  return units;
}

uint64_t MillisSince(absl::Time then, absl::Time now) {
  return static_cast<uint64_t>(std::max<int64_t>(absl::ToInt64Milliseconds(now - then), 0));
}

}  // namespace

PlacementSteering::PlacementSteering(
    const SteeredModel* model, moves::MoverOptions options, mesh::Fleet* fleet,
    std::function<void(uint64_t switch_id, moves::PlanPtr plan)> switch_plan, Clock* clock)
    : model_(model),
      options_(options),
      fleet_(fleet),
      clock_(clock),
      timers_(clock),
      nodes_(fleet, UnitsOf(*model)),
      mover_(
          options, SizesOf(*model), &nodes_,
          {std::move(switch_plan), [this](const moves::MoveOutcome& outcome) { OnEnd(outcome); }},
          &timers_, clock) {}

void PlacementSteering::Decide(uint64_t term, moves::PlanPtr plan) {
  const absl::Status status = mover_.Adopt(term, std::move(plan));
  absl::MutexLock lock(&mutex_);
  term_ = term;
  problem_ = status.ok() ? "" : absl::StrCat("the plan in force is none: ", status.message());
}

void PlacementSteering::Resign() {
  mover_.Resign();
  absl::MutexLock lock(&mutex_);
  term_ = 0;
  problem_.clear();
}

absl::StatusOr<PlacementSteering::Planned> PlacementSteering::Plan(const v1::Topology& topology,
                                                                   const LoadCounts& loads,
                                                                   const PlacementPolicy& policy,
                                                                   DrainingNodes draining) const {
  const moves::PlanPtr present = mover_.in_force();
  ASSIGN_OR_RETURN(PlanningQuestion question,
                   MakePlanningQuestion(*model_, topology, loads, present.get(), policy, draining));
  question.options.bytes_per_second = LoadRate(options_, question.input.nodes.size());
  Planned planned;
  ASSIGN_OR_RETURN(planned.result, balance::PlanPlacement(question.input, question.options));
  planned.input = std::move(question.input);
  planned.whole = std::make_shared<const balance::PlacementPlan>(
      WithUnplannedLayers(planned.result.plan, present.get()));
  return planned;
}

absl::StatusOr<v1::PlacementProposal> PlacementSteering::Propose(const LoadCounts& loads,
                                                                 const PlacementPolicy& policy) {
  ASSIGN_OR_RETURN(const Planned planned,
                   Plan(fleet_->Topology(), loads, policy, DrainingNodes::kLeaveOut));
  const balance::PlanningResult& result = planned.result;
  v1::PlacementProposal proposal = Summarise(result);
  *proposal.mutable_plan() = ToProto(*planned.whole);
  for (size_t i = 0; i < std::min(result.moves.size(), kMostMoves); ++i) {
    proposal.add_moves(balance::Explain(planned.input, result, result.moves[i]));
  }
  return proposal;
}

absl::Status PlacementSteering::Apply(moves::PlanPtr plan, const LoadCounts& loads,
                                      const PlacementPolicy& policy) {
  uint64_t term = 0;
  {
    absl::MutexLock lock(&mutex_);
    term = term_;
  }
  if (plan == nullptr) {
    ASSIGN_OR_RETURN(const Planned planned,
                     Plan(fleet_->Topology(), loads, policy, DrainingNodes::kLeaveOut));
    plan = planned.whole;
    absl::MutexLock lock(&mutex_);
    last_ = Summarise(planned.result);
    planned_at_ = clock_->Now();
  }
  return mover_.Start(term, std::move(plan));
}

absl::Status PlacementSteering::Abort() {
  return mover_.Abort(absl::CancelledError("an operator ended the move"));
}

std::string PlacementSteering::WhyNot(const v1::Topology& topology) const {
  if (mover_.progress().phase != moves::MovePhase::kIdle) {
    return "a move is under way";
  }
  // Such a node may serve as before in a while: its experts are not loaded elsewhere for a restart.
  return AwaitedNode(topology);
}

void PlacementSteering::Tick(const LoadCounts& loads, const PlacementPolicy& policy) {
  const absl::Time now = clock_->Now();
  {
    absl::MutexLock lock(&mutex_);
    if (!policy.automatic || term_ == 0 || now - planned_at_ < policy.interval) {
      return;
    }
    planned_at_ = now;
  }
  const v1::Topology topology = fleet_->Topology();
  v1::PlacementProposal proposal;
  moves::PlanPtr plan;
  if (const std::string why = WhyNot(topology); !why.empty()) {
    proposal.set_reason(why);
  } else if (const absl::StatusOr<Planned> planned =
                 Plan(topology, loads, policy, DrainingNodes::kKeepCopies);
             !planned.ok()) {
    proposal.set_reason(std::string(planned.status().message()));
  } else {
    proposal = Summarise(planned->result);
    plan = proposal.apply() ? planned->whole : nullptr;
  }
  uint64_t term = 0;
  {
    absl::MutexLock lock(&mutex_);
    last_ = proposal;
    term = term_;
  }
  if (plan != nullptr) {
    spdlog::info("placement: {}", proposal.reason());
    if (const absl::Status status = mover_.Start(term, std::move(plan)); !status.ok()) {
      spdlog::warn("placement: {}", std::string(status.message()));
      absl::MutexLock lock(&mutex_);
      last_->set_reason(std::string(status.message()));
    }
  }
}

void PlacementSteering::OnEnd(const moves::MoveOutcome& outcome) {
  if (!outcome.status.ok()) {
    spdlog::warn("placement: {}", std::string(outcome.status.message()));
  }
  absl::MutexLock lock(&mutex_);
  if (outcome.fenced) {
    problem_ = std::string(outcome.status.message());
  } else if (outcome.status.ok() && !outcome.repair) {
    moved_at_ = clock_->Now();
  }
}

v1::PlacementState PlacementSteering::Describe(bool with_plan) const {
  const absl::Time now = clock_->Now();
  v1::PlacementState state;
  if (const moves::PlanPtr plan = mover_.in_force(); with_plan && plan != nullptr) {
    *state.mutable_plan() = balance_control::ToProto(*plan);
  }
  *state.mutable_moves() = ToProto(mover_.progress());
  absl::MutexLock lock(&mutex_);
  if (last_) {
    *state.mutable_last_proposal() = *last_;
  }
  if (planned_at_ != absl::InfinitePast()) {
    state.set_since_planned_ms(MillisSince(planned_at_, now));
  }
  if (moved_at_ != absl::InfinitePast()) {
    state.set_since_moved_ms(MillisSince(moved_at_, now));
  }
  return state;
}

std::string PlacementSteering::problem() const {
  absl::MutexLock lock(&mutex_);
  return problem_;
}

}  // namespace expertmesh::balance_control
