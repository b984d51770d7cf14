#include "router_service/balance/controller.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"
#include "router_service/balance/describe_balance.h"

namespace expertmesh::balance_control {
namespace {

// Epochs that are used before the file has to say so: after a kill, epochs go on behind them.
constexpr uint64_t kEpochBlock = 1 << 16;
// Counts alone are written no more often.
constexpr absl::Duration kSaveInterval = absl::Seconds(5);
constexpr size_t kRecentDecisions = 4;
// How often it is looked at what a bias does that was set.
constexpr absl::Duration kLookInterval = absl::Milliseconds(100);
// A follower that is silent for so long, and so many ticks, is gone: nothing waits for it. It does
// no harm if it is not: nodes themselves tell it what they no longer hold.
constexpr absl::Duration kGoneAfter = absl::Seconds(10);
constexpr int kSilentTicks = 10;

}  // namespace

Controller::Controller(ControllerOptions options, SteeredModel model,
                       std::function<LoadCounts()> read_counts, const ControllerParts& parts)
    : options_(std::move(options)),
      model_(std::move(model)),
      read_counts_(std::move(read_counts)),
      read_gauges_(parts.read_gauges),
      after_tick_(parts.after_tick),
      authority_(parts.authority),
      links_(parts.links),
      fleet_(parts.fleet),
      clock_(parts.clock),
      table_(&model_, options_.router_id, std::max(kGoneAfter, kSilentTicks * options_.interval)),
      placement_(std::make_unique<PlacementSteering>(
          &model_, options_.mover, parts.fleet,
          [this](uint64_t id, moves::PlanPtr plan) { SwitchPlan(id, std::move(plan)); },
          parts.clock)) {}

absl::StatusOr<std::unique_ptr<Controller>> Controller::Create(
    ControllerOptions options, SteeredModel model, std::function<LoadCounts()> read_counts,
    const ControllerParts& parts) {
  RETURN_IF_ERROR(balance::ValidateBiasPolicy(options.policy));
  auto controller = std::unique_ptr<Controller>(
      new Controller(std::move(options), std::move(model), std::move(read_counts), parts));
  RETURN_IF_ERROR(controller->Restore());
  controller->Serve(parts.authority->Now());
  controller->PublishIfNew();
  Controller* const self = controller.get();
  self->fleet_subscription_ = parts.fleet->Subscribe([self] {
    self->placement_->OnNodesChanged();
    self->Tell();
  });
  self->thread_ = std::thread([self] { self->Run(); });
  return controller;
}

Controller::~Controller() {
  if (!thread_.joinable()) {
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
  fleet_->Unsubscribe(fleet_subscription_);
  placement_.reset();
  std::unique_ptr<Follower> follower;
  {
    absl::MutexLock lock(&mutex_);
    follower.swap(follower_);
  }
  follower.reset();
  Save();
}

absl::Status Controller::Restore() {
  absl::MutexLock lock(&mutex_);
  decision_ = InitialDecision(model_, options_.policy);
  decision_.epoch = 1;
  reserved_epoch_ = 1;
  if (options_.state_dir.empty()) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(StateStore store, StateStore::Open(options_.state_dir));
  store_.emplace(std::move(store));
  std::string note;
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, store_->Load(&note));
  if (!note.empty()) {
    spdlog::warn("state: {}", note);
  }
  if (!bytes) {
    return absl::OkStatus();
  }
  const std::string from = absl::StrCat("the state in ", options_.state_dir);
  internal::v1::SavedState saved;
  if (!saved.ParseFromString(*bytes)) {
    return absl::DataLossError(absl::StrCat(from, " cannot be read; remove it to begin without"));
  }
  ASSIGN_OR_RETURN(decision_, FromProto(model_, saved.decision(), from));
  if (const absl::Status status = table_.Restore(saved); !status.ok()) {
    return WithContext(from, status);
  }
  reserved_epoch_ = std::max<uint64_t>(saved.next_epoch(), 1);
  spdlog::info("state: goes on from term {}, epoch {}", decision_.term, decision_.epoch);
  return absl::OkStatus();
}

void Controller::Run() {
  absl::Time next_tick = clock_->Now();
  absl::Time next_look = absl::InfiniteFuture();
  while (AwaitWork(std::min(next_tick, next_look))) {
    const Leader leader = authority_->Now();
    bool same = true;
    {
      absl::MutexLock lock(&mutex_);
      same = leader == leader_;
    }
    if (!same) {
      Serve(leader);
    }
    if (!leader.self) {
      TakeFromAuthority();
    }
    const bool ticks = clock_->Now() >= next_tick;
    if (ticks) {
      Tick();
      next_tick = clock_->Now() + options_.interval;
    } else if (clock_->Now() >= next_look) {
      Look();
    }
    next_look = NextLook(next_look);
    PublishIfNew();
    ConfirmSwitch();
    if (ticks) {
      if (clock_->Now() - saved_at_ >= kSaveInterval) {
        Save();
      }
      if (after_tick_ != nullptr) {
        after_tick_(*this);
      }
      Tell();
    }
  }
}

bool Controller::AwaitWork(absl::Time until) {
  absl::MutexLock lock(&mutex_);
  while (!stopping_ && !woken_) {
    if (until == absl::InfiniteFuture()) {
      changed_.Wait(&mutex_);
    } else if (clock_->WaitUntil(&mutex_, &changed_, until)) {
      break;
    }
  }
  woken_ = false;
  return !stopping_;
}

void Controller::Tick() {
  const absl::Time now = clock_->Now();
  const uint64_t epoch = fleet_->view()->epoch();
  auto own = std::make_shared<const LoadCounts>(read_counts_());
  std::optional<LoadCounts> of_late;  // For the planner of an authority.
  PlacementPolicy policy;
  {
    absl::MutexLock lock(&mutex_);
    Count(std::move(own), epoch, now);
    if (follower_ == nullptr && decision_.placement.automatic) {
      of_late = loads_.Last(kLongWindow).counts;
      policy = decision_.placement;
    }
  }
  if (of_late) {
    placement_->Tick(*of_late, policy);
  }
}

std::shared_ptr<const LoadCounts> Controller::CountNow(uint64_t epoch) {
  table_.SetOwn(read_counts_(), epoch, clock_->Now());
  return table_.Totals();
}

void Controller::Look() {
  const uint64_t epoch = fleet_->view()->epoch();
  absl::MutexLock lock(&mutex_);
  if (follower_ == nullptr && steering_.BackOff(*CountNow(epoch))) {
    Decide();
  }
}

absl::Time Controller::NextLook(absl::Time next) const {
  absl::MutexLock lock(&mutex_);
  if (follower_ != nullptr || options_.interval == absl::InfiniteDuration() ||
      !steering_.OnTrial()) {
    return absl::InfiniteFuture();
  }
  const absl::Time now = clock_->Now();
  return next > now && next != absl::InfiniteFuture() ? next : now + kLookInterval;
}

void Controller::Measure(absl::Time now) {
  if (read_gauges_ == nullptr) {
    return;
  }
  const bool due = now - measured_at_ >= kWindow;
  for (const auto& [layer, gauges] : read_gauges_()) {
    v1::LayerMeasures& measures = measures_[layer];
    measures.set_batch_max_violation(gauges.batch_max_violation);
    if (due && gauges.scores != nullptr) {
      gauges.scores->Take(&measures);
    }
  }
  measured_at_ = due ? now : measured_at_;
}

void Controller::Count(std::shared_ptr<const LoadCounts> own, uint64_t epoch, absl::Time now) {
  table_.SetOwn(*own, epoch, now);
  own_loads_.Add(now, own);
  ticked_ = now;
  Measure(now);
  if (follower_ != nullptr) {
    internal::v1::ReportLoadRequest report;
    report.set_router_id(options_.router_id);
    report.set_term(decision_.term);
    report.set_epoch(epoch);
    report.set_outline(model_.outline);
    for (const auto& [layer, counts] : *own) {
      *report.add_layers() = ToProto(layer, counts);
    }
    follower_->Report(report);
    loads_.Add(now, own);
    return;
  }
  const std::shared_ptr<const LoadCounts> totals = table_.Totals();
  loads_.Add(now, totals);
  if (steering_.Step(*totals)) {
    Decide();
  }
}

void Controller::Decide() {
  if (follower_ == nullptr) {
    decision_.layers = steering_.Layers();
  }
  ++decided_;
  woken_ = true;
  changed_.SignalAll();
}

void Controller::PublishIfNew() {
  mesh::Directive directive;
  std::shared_ptr<const Decision> decision;
  std::shared_ptr<const LayerBiases> biases;
  {
    absl::MutexLock lock(&mutex_);
    if (published_ == decided_) {
      return;
    }
    decision = std::make_shared<const Decision>(decision_);
    auto live = std::make_shared<mesh::SelectBiases>();
    for (const auto& [layer, decided] : decision->layers) {
      if (decided.bias != model_.layers.at(layer).checkpoint_bias) {
        live->emplace(layer, decided.bias);
      }
    }
    if (live_biases_ == nullptr || *live != *live_biases_) {
      live_biases_ = std::move(live);
    }
    biases = std::make_shared<const LayerBiases>(BiasesOf(*decision));
    recent_[decided_] = decision;
    while (recent_.size() > kRecentDecisions) {
      recent_.erase(recent_.begin());
    }
    directive = {decision->term, decision->epoch, follower_ != nullptr,
                 decided_,       live_biases_,    decision->plan};
  }
  Save();  // First: what was in force for a moment is not forgotten.
  const uint64_t number = directive.decision;
  const uint64_t epoch = fleet_->SetDirective(std::move(directive));
  {
    absl::MutexLock lock(&mutex_);
    published_ = number;
    published_at_ = clock_->Now();
    history_.Add(epoch, std::move(biases));
    if (switch_ && switch_->decision <= number) {
      switch_->epoch = epoch;
    }
    changed_.SignalAll();
  }
  Tell();
}

void Controller::Save() {
  saved_at_ = clock_->Now();
  if (!store_) {
    return;
  }
  const uint64_t viewed = fleet_->view()->epoch();
  internal::v1::SavedState saved;
  {
    absl::MutexLock lock(&mutex_);
    const uint64_t epoch = std::max(viewed, decision_.epoch);
    if (reserved_epoch_ < epoch + kEpochBlock / 2) {
      reserved_epoch_ = epoch + kEpochBlock;
    }
    *saved.mutable_decision() = ToProto(model_, decision_);
    saved.set_next_epoch(reserved_epoch_);
    for (internal::v1::ReportLoadRequest& router : table_.Save()) {
      *saved.add_routers() = std::move(router);
    }
  }
  const absl::Status status = store_->Save(saved.SerializeAsString());
  absl::MutexLock lock(&mutex_);
  if (!status.ok() && save_problem_.empty()) {
    spdlog::error("state: {}; until it can be written, a kill forgets what is decided",
                  std::string(status.message()));
  }
  save_problem_ = std::string(status.message());
}

void Controller::Tell() {
  absl::MutexLock lock(&subscribers_mutex_);
  for (const auto& [id, callback] : subscribers_) {
    callback();
  }
}

std::shared_ptr<void> Controller::Subscribe(std::function<void()> callback) {
  absl::MutexLock lock(&subscribers_mutex_);
  const uint64_t id = next_subscriber_++;
  subscribers_.emplace(id, std::move(callback));
  return std::shared_ptr<void>(this, [this, id](void*) {
    absl::MutexLock unlock(&subscribers_mutex_);
    subscribers_.erase(id);
  });
}

}  // namespace expertmesh::balance_control
