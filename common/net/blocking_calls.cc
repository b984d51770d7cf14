#include "common/net/blocking_calls.h"

#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace expertmesh::net {

struct BlockingCalls::State {
  absl::Mutex mutex;
  int running ABSL_GUARDED_BY(mutex) = 0;
};

BlockingCalls::BlockingCalls(int most) : most_(most), state_(std::make_shared<State>()) {}

BlockingCalls::~BlockingCalls() { AwaitNone(); }

bool BlockingCalls::Run(std::function<void()> call) {
  {
    absl::MutexLock lock(&state_->mutex);
    if (state_->running >= most_) {
      return false;
    }
    ++state_->running;
  }
  std::thread([state = state_, call = std::move(call)]() mutable {
    call();
    call = nullptr;  // What it holds may be waited for, too.
    absl::MutexLock lock(&state->mutex);
    --state->running;
  }).detach();
  return true;
}

void BlockingCalls::AwaitNone() {
  absl::MutexLock lock(&state_->mutex);
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex) {
    return state_->running == 0;
  };
  state_->mutex.Await(absl::Condition(&none));
}

}  // namespace expertmesh::net
