#include "common/base/clock.h"

#include <chrono>
#include <vector>

namespace expertmesh {
namespace {

class RealClock final : public Clock {
 public:
  absl::Time Now() const override {
    return absl::UnixEpoch() +
           absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }

  bool WaitUntil(absl::Mutex* mutex, absl::CondVar* condition, absl::Time deadline) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (deadline == absl::InfiniteFuture()) {
      condition->Wait(mutex);
      return false;
    }
    const absl::Duration left = deadline - Now();
    if (left <= absl::ZeroDuration()) {
      return true;
    }
    condition->WaitWithTimeout(mutex, left);
    return Now() >= deadline;
  }
};

}  // namespace

Clock* Clock::Real() {
  static RealClock* const clock = new RealClock;
  return clock;
}

absl::Time FakeClock::Now() const {
  absl::MutexLock lock(&mutex_);
  return now_;
}

// The caller's mutex is always taken before mutex_. Advance() therefore signals without mutex_
// held, and takes each waiter's mutex first so that no waiter is between its check and its wait.
bool FakeClock::WaitUntil(absl::Mutex* mutex, absl::CondVar* condition, absl::Time deadline) {
  std::list<Waiter>::iterator self;
  {
    absl::MutexLock lock(&mutex_);
    if (now_ >= deadline) {
      return true;
    }
    self = waiters_.insert(waiters_.end(), Waiter{mutex, condition, deadline});
  }
  condition->Wait(mutex);
  absl::MutexLock lock(&mutex_);
  waiters_.erase(self);
  return now_ >= deadline;
}

void FakeClock::Advance(absl::Duration by) {
  std::vector<Waiter> due;
  {
    absl::MutexLock lock(&mutex_);
    now_ += by;
    for (const Waiter& waiter : waiters_) {
      if (waiter.deadline <= now_) {
        due.push_back(waiter);
      }
    }
  }
  for (const Waiter& waiter : due) {
    absl::MutexLock lock(waiter.mutex);
    waiter.condition->SignalAll();
  }
}

void FakeClock::AwaitWaiters(int count) const {
  absl::MutexLock lock(&mutex_);
  const auto enough = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return static_cast<int>(waiters_.size()) >= count;
  };
  mutex_.Await(absl::Condition(&enough));
}

}  // namespace expertmesh
