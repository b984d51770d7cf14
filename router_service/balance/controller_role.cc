// A controller as authority and as follower: the change between the two, and what each takes from
// others.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "router_service/balance/controller.h"

namespace expertmesh::balance_control {

void Controller::Serve(const Leader& leader) {
  uint64_t term = 0;
  moves::PlanPtr plan;
  std::unique_ptr<Follower> follower;
  if (!leader.self) {
    follower = std::make_unique<Follower>(&model_, links_, leader.address, options_.interval,
                                          clock_, [this] {
                                            absl::MutexLock lock(&mutex_);
                                            woken_ = true;
                                            changed_.Signal();
                                          });
    spdlog::info("balance: follows the router at {}", leader.address);
  }
  {
    absl::MutexLock lock(&mutex_);
    leader_ = leader;
    if (leader.self) {
      decision_.term = std::max(decision_.term + 1, options_.least_term);
      decision_.epoch = std::max(reserved_epoch_, fleet_->view()->epoch());
      decision_.authority_id = options_.router_id;
    }
    steering_.Reset(decision_.layers);
    follower_.swap(follower);
    switch_.reset();
    Decide();
    term = decision_.term;
    plan = decision_.plan;
  }
  if (leader.self) {
    placement_->Decide(term, std::move(plan));
  } else {
    placement_->Resign();
  }
}

void Controller::TakeFromAuthority() {
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<std::optional<Decision>> taken = follower_->Take(decision_);
  if (!taken.ok()) {
    spdlog::warn("balance: {}", std::string(taken.status().message()));
    return;
  }
  if (!taken->has_value()) {
    return;
  }
  const bool anew = (*taken)->term != decision_.term;
  const bool news = anew || (*taken)->epoch != decision_.epoch;
  if (decision_.plan != nullptr && (*taken)->plan != nullptr &&
      *decision_.plan == *(*taken)->plan) {
    (*taken)->plan = decision_.plan;  // Views tell by the object what is new.
  }
  decision_ = **std::move(taken);
  if (news) {
    steering_.Reset(decision_.layers);
    Decide();
  }
  if (anew) {
    spdlog::info("balance: term {} of authority {}, epoch {}", decision_.term,
                 decision_.authority_id, decision_.epoch);
  }
}

void Controller::SwitchPlan(uint64_t switch_id, moves::PlanPtr plan) {
  absl::MutexLock lock(&mutex_);
  if (follower_ != nullptr) {
    return;  // Another router decides by now.
  }
  decision_.plan = std::move(plan);
  Decide();
  switch_ = Switch{switch_id, decided_, std::nullopt};
}

void Controller::ConfirmSwitch() {
  std::optional<uint64_t> done;
  {
    absl::MutexLock lock(&mutex_);
    if (switch_ && switch_->epoch && table_.AllServe(*switch_->epoch, clock_->Now())) {
      done = switch_->id;
      switch_.reset();
    }
  }
  if (done) {
    placement_->Confirm(*done);
  }
}

}  // namespace expertmesh::balance_control
