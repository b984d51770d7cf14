#include "router_service/serve/balance_watch.h"

#include <utility>

namespace expertmesh::serve {

BalanceWatch::BalanceWatch(balance_control::Controller* controller, Clock* clock)
    : controller_(controller),
      clock_(clock),
      told_(Read()),
      ticks_(controller->Subscribe([this] { Look(); })),
      timers_(clock) {
  timers_.Schedule(clock_->Now() + kInterval, [this] { LookAgain(); });
}

BalanceWatch::~BalanceWatch() = default;

std::shared_ptr<void> BalanceWatch::Subscribe(std::function<void()> on_change) {
  absl::MutexLock lock(&mutex_);
  const uint64_t id = next_subscriber_++;
  on_change();
  subscribers_.emplace(id, std::move(on_change));
  return std::shared_ptr<void>(this, [this, id](void*) {
    absl::MutexLock unlock(&mutex_);
    subscribers_.erase(id);
  });
}

BalanceWatch::State BalanceWatch::Read() const {
  v1::BalanceSummary summary = controller_->Summary();
  return {summary.alive(), summary.role(), std::move(*summary.mutable_authority()), summary.term()};
}

void BalanceWatch::Look() {
  absl::MutexLock lock(&mutex_);  // Also while it reads: what is told last is the newest.
  State now = Read();
  if (now == told_) {
    return;
  }
  told_ = std::move(now);
  for (const auto& [id, on_change] : subscribers_) {
    on_change();
  }
}

void BalanceWatch::LookAgain() {
  Look();
  timers_.Schedule(clock_->Now() + kInterval, [this] { LookAgain(); });
}

}  // namespace expertmesh::serve
