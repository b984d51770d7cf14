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

void TimerQueue::CancelAndWait(Id id) {
  if (id == 0 || Cancel(id)) {
    return;
  }
  const auto not_running = [this, id]()
                               ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_ != id; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&not_running));
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
    std::function<void()> callback = std::move(first->second);
    running_ = first->first.second;
    when_.erase(running_);
    pending_.erase(first);
    mutex_.Unlock();
    callback();
    callback = nullptr;  // What it holds goes before CancelAndWait returns.
    mutex_.Lock();
    running_ = 0;
  }
}

}  // namespace expertmesh
