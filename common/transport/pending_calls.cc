#include "common/transport/pending_calls.h"

namespace expertmesh {

uint64_t PendingCalls::Add(Done done) {
  absl::MutexLock lock(&mutex_);
  const uint64_t id = next_id_++;
  calls_[id].done = std::move(done);
  return id;
}

void PendingCalls::OnAbandon(uint64_t id, Abandon abandon) {
  {
    absl::MutexLock lock(&mutex_);
    const auto call = calls_.find(id);
    if (call != calls_.end()) {
      call->second.abandon = std::move(abandon);
      return;
    }
  }
  abandon();
}

void PendingCalls::End(uint64_t id, absl::StatusOr<Frame> result) {
  Call call;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = calls_.find(id);
    if (found == calls_.end()) {
      return;
    }
    call.done = std::move(found->second.done);
    calls_.erase(found);
    ++running_;
  }
  Run(std::move(call), std::move(result));
}

void PendingCalls::EndAll(const absl::Status& why) {
  absl::flat_hash_map<uint64_t, Call> calls;
  {
    absl::MutexLock lock(&mutex_);
    calls.swap(calls_);
    running_ += static_cast<int>(calls.size());
  }
  for (auto& [id, call] : calls) {
    Run(std::move(call), why);
  }
}

void PendingCalls::Close(const absl::Status& why) {
  EndAll(why);
  absl::MutexLock lock(&mutex_);
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_ == 0; };
  mutex_.Await(absl::Condition(&none));
}

void PendingCalls::Run(Call call, absl::StatusOr<Frame> result) {
  if (call.abandon) {
    call.abandon();
  }
  call.done(std::move(result));
  call.done = nullptr;  // What it holds goes before those who wait for it.
  absl::MutexLock lock(&mutex_);
  --running_;
}

}  // namespace expertmesh
