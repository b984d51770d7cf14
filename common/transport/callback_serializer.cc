#include "common/transport/callback_serializer.h"

namespace expertmesh {

bool CallbackSerializer::Begin() {
  absl::MutexLock lock(&mutex_);
  if (closed_ || running_) {
    return false;
  }
  running_ = true;
  return true;
}

bool CallbackSerializer::Wait(absl::AnyInvocable<void()> callback) {
  absl::MutexLock lock(&mutex_);
  if (closed_) {
    return false;
  }
  waiting_.push_back(std::move(callback));
  return !std::exchange(running_, true);
}

void CallbackSerializer::RunWaiting() {
  for (;;) {
    absl::AnyInvocable<void()> next;
    {
      absl::MutexLock lock(&mutex_);
      if (waiting_.empty()) {
        running_ = false;
        return;
      }
      next = waiting_.Pop();
    }
    next();
  }
}

void CallbackSerializer::Close() {
  RingQueue<absl::AnyInvocable<void()>> dropped;
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  std::swap(dropped, waiting_);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !running_; };
  mutex_.Await(absl::Condition(&idle));
}

}  // namespace expertmesh
