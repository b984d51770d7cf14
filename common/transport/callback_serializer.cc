#include "common/transport/callback_serializer.h"

#include <utility>

namespace expertmesh {

void CallbackSerializer::Run(std::function<void()> callback) {
  {
    absl::MutexLock lock(&mutex_);
    if (closed_) {
      return;
    }
    waiting_.push_back(std::move(callback));
    if (running_) {
      return;
    }
    running_ = true;
  }
  for (;;) {
    std::function<void()> next;
    {
      absl::MutexLock lock(&mutex_);
      if (waiting_.empty()) {
        running_ = false;
        return;
      }
      next = std::move(waiting_.front());
      waiting_.pop_front();
    }
    next();
  }
}

void CallbackSerializer::Close() {
  std::deque<std::function<void()>> dropped;
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  dropped.swap(waiting_);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !running_; };
  mutex_.Await(absl::Condition(&idle));
}

}  // namespace expertmesh
