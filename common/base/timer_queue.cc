#include "common/base/timer_queue.h"

namespace expertmesh {

TimerQueue::TimerQueue(Clock* clock) : clock_(clock), thread_([this] { Run(); }) {}

TimerQueue::~TimerQueue() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

TimerQueue::Id TimerQueue::Schedule(absl::Time when, std::function<void()> callback) {
  absl::MutexLock lock(&mutex_);
  const Id id = next_id_++;
  const bool first = pending_.empty() || when < pending_.begin()->first.first;
  pending_.emplace(std::make_pair(when, id), std::move(callback));
  when_.emplace(id, when);
  if (first) {
    changed_.SignalAll();
  }
  return id;
}

bool TimerQueue::Cancel(Id id) {
  absl::MutexLock lock(&mutex_);
  const auto it = when_.find(id);
  if (it == when_.end()) {
    return false;
  }
  pending_.erase({it->second, id});
  when_.erase(it);
  return true;
}

void TimerQueue::Run() {
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    if (pending_.empty()) {
      changed_.Wait(&mutex_);
      continue;
    }
    const auto first = pending_.begin();
    if (first->first.first > clock_->Now()) {
      clock_->WaitUntil(&mutex_, &changed_, first->first.first);
      continue;
    }
    const std::function<void()> callback = std::move(first->second);
    when_.erase(first->first.second);
    pending_.erase(first);
    mutex_.Unlock();
    callback();
    mutex_.Lock();
  }
}

}  // namespace expertmesh
