// What is asked of a controller: the methods of Control and Authority.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/wire/error_reason.h"
#include "router_service/balance/controller.h"
#include "router_service/balance/describe_balance.h"

namespace expertmesh::balance_control {
namespace {

// Longest wait until what was decided is in force.
constexpr absl::Duration kPublishTimeout = absl::Seconds(10);
// An authority, or the thread, that is silent for so long is not alive.
constexpr absl::Duration kSilence = absl::Seconds(5);
constexpr int kSilentIntervals = 5;

uint64_t Millis(absl::Duration duration) {
  return static_cast<uint64_t>(std::max<int64_t>(absl::ToInt64Milliseconds(duration), 0));
}

}  // namespace

absl::Status Controller::CheckDecides() const {
  if (leader_.self) {
    return absl::OkStatus();
  }
  return ErrorOf(v1::ERROR_REASON_NOT_AUTHORITY,
                 absl::StrCat("this router follows the one at ", leader_.address,
                              ", which decides on bias and placement; ask that one"),
                 {{"authority", leader_.address}});
}

void Controller::AwaitPublished() {
  absl::MutexLock lock(&mutex_);
  const uint64_t wanted = decided_;
  const absl::Time deadline = clock_->Now() + kPublishTimeout;
  while (published_ < wanted && !stopping_ && !clock_->WaitUntil(&mutex_, &changed_, deadline)) {
  }
}

v1::Balance Controller::GetBalance() const {
  const absl::Time now = clock_->Now();
  const uint64_t epoch = fleet_->view()->epoch();
  v1::Balance balance;
  absl::MutexLock lock(&mutex_);
  *balance.mutable_summary() = SummaryLocked();
  balance.set_epoch(epoch);
  DescribeLayers(model_, steering_, loads_.Last(kWindow), measures_, &balance);
  if (leader_.self) {
    for (v1::ReportingRouter& router : table_.Describe(now)) {
      *balance.add_routers() = std::move(router);
    }
  }
  return balance;
}

absl::StatusOr<v1::Balance> Controller::SetBalance(const v1::SetBalanceRequest& request) {
  const uint64_t epoch = fleet_->view()->epoch();
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(CheckDecides());
    const std::map<uint32_t, LayerDecision> now = steering_.Layers();
    std::map<uint32_t, balance::BiasPolicy> policies;
    for (const uint32_t layer : request.layers()) {
      RETURN_IF_ERROR(CheckSteerable(model_, layer));
      policies[layer];
    }
    for (const auto& [layer, decided] : now) {
      if (request.layers().empty() || policies.contains(layer)) {
        ASSIGN_OR_RETURN(policies[layer], WithChange(decided.policy, request.policy()));
      }
    }
    const std::shared_ptr<const LoadCounts> totals = CountNow(epoch);
    for (const auto& [layer, policy] : policies) {
      steering_.SetPolicy(layer, policy);
      if (request.reset_bias()) {
        steering_.SetBias(layer, model_.layers.at(layer).checkpoint_bias, *totals);
      }
    }
    Decide();
  }
  AwaitPublished();
  return GetBalance();
}

absl::StatusOr<v1::Bias> Controller::GetBias(uint64_t epoch) const {
  const mesh::ViewVersion view = fleet_->view()->version();
  absl::MutexLock lock(&mutex_);
  const auto present = recent_.find(view.decision);
  if ((epoch == 0 || epoch == view.epoch) && present != recent_.end()) {
    return DescribeBias(model_, view.epoch, BiasesOf(*present->second));
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const LayerBiases> biases, history_.At(epoch, view.epoch));
  return DescribeBias(model_, epoch, *biases);
}

absl::StatusOr<v1::Balance> Controller::SetBias(const v1::SetBiasRequest& request) {
  const v1::Bias& bias = request.bias();
  const uint64_t epoch = fleet_->view()->epoch();
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(CheckDecides());
    if (!bias.outline().empty()) {
      RETURN_IF_ERROR(CheckOutline(model_, bias.outline(), "who made this bias"));
    }
    for (const v1::LayerBias& layer : bias.layers()) {
      RETURN_IF_ERROR(CheckSteerable(model_, layer.layer()));
      RETURN_IF_ERROR(CheckBias(layer.layer(), model_.layers.at(layer.layer()), layer.values()));
    }
    const std::shared_ptr<const LoadCounts> totals = CountNow(epoch);
    for (const v1::LayerBias& layer : bias.layers()) {
      steering_.SetBias(layer.layer(), {layer.values().begin(), layer.values().end()}, *totals);
    }
    Decide();
  }
  AwaitPublished();
  return GetBalance();
}

v1::GetLoadResponse Controller::GetLoad(const v1::GetLoadRequest& request) {
  const uint64_t epoch = fleet_->view()->epoch();
  const bool mesh = request.scope() == v1::LOAD_SCOPE_MESH;
  if (request.window_ms() == 0) {
    LoadCounts own = read_counts_();
    if (!mesh) {
      return DescribeLoad(own, absl::ZeroDuration(), epoch);
    }
    absl::MutexLock lock(&mutex_);
    table_.SetOwn(std::move(own), epoch, clock_->Now());
    return DescribeLoad(*table_.Totals(), absl::ZeroDuration(), epoch);
  }
  absl::Duration window = kLongWindow;
  for (const absl::Duration kept : {kWindow, kShortWindow}) {
    window = absl::Milliseconds(request.window_ms()) <= kept ? kept : window;
  }
  absl::MutexLock lock(&mutex_);
  const LoadWindow counted = (mesh ? loads_ : own_loads_).Last(window);
  return DescribeLoad(counted.counts, counted.span, epoch);
}

std::string Controller::WhatIsWrong(absl::Time now) const {
  const absl::Duration silence = std::max(kSilence, kSilentIntervals * options_.interval);
  if (ticked_ != absl::InfinitePast() && now - ticked_ > silence) {
    return absl::StrCat("load was not looked at for ", absl::FormatDuration(now - ticked_));
  }
  if (follower_ != nullptr && now - follower_->heard() > silence) {
    const std::string problem = follower_->problem();
    return absl::StrCat(
        problem.empty() ? absl::StrCat("the authority at ", leader_.address, " is silent")
                        : problem,
        "; this router serves on epoch ", decision_.epoch, " of term ", decision_.term);
  }
  if (const std::string problem = placement_->problem(); !problem.empty()) {
    return absl::StrCat("placement: ", problem);
  }
  if (!save_problem_.empty()) {
    return absl::StrCat("what is decided cannot be kept: ", save_problem_);
  }
  return "";
}

v1::BalanceSummary Controller::SummaryLocked() const {
  const absl::Time now = clock_->Now();
  v1::BalanceSummary summary;
  summary.set_role(leader_.self ? v1::BALANCE_ROLE_AUTHORITY : v1::BALANCE_ROLE_FOLLOWER);
  summary.set_authority(leader_.address);
  summary.set_term(decision_.term);
  summary.set_reason(WhatIsWrong(now));
  summary.set_alive(summary.reason().empty());
  if (published_at_ != absl::InfinitePast()) {
    summary.set_since_change_ms(Millis(now - published_at_));
  }
  const absl::Time tick = follower_ == nullptr ? ticked_ : follower_->heard();
  if (tick != absl::InfinitePast()) {
    summary.set_since_tick_ms(Millis(now - tick));
  }
  return summary;
}

v1::BalanceSummary Controller::Summary() const {
  absl::MutexLock lock(&mutex_);
  return SummaryLocked();
}

absl::Status Controller::CheckFollower(const internal::v1::FollowRequest& request) const {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(CheckDecides());
  return CheckOutline(model_, request.outline(), "the follower");
}

internal::v1::Decision Controller::DecisionInForce(uint64_t* version) const {
  const mesh::ViewVersion view = fleet_->view()->version();
  absl::MutexLock lock(&mutex_);
  const auto it = recent_.find(view.decision);
  Decision decision = it == recent_.end() ? decision_ : *it->second;
  decision.epoch = view.epoch;
  *version = view.decision;
  return ToProto(model_, decision);
}

absl::StatusOr<internal::v1::ReportLoadResponse> Controller::Report(
    const internal::v1::ReportLoadRequest& request) {
  const uint64_t epoch = fleet_->view()->epoch();
  internal::v1::ReportLoadResponse response;
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(CheckDecides());
  RETURN_IF_ERROR(CheckOutline(model_, request.outline(), "the follower"));
  RETURN_IF_ERROR(table_.Report(request, clock_->Now()));
  response.set_term(decision_.term);
  response.set_epoch(epoch);
  return response;
}

}  // namespace expertmesh::balance_control
