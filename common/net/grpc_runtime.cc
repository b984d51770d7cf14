#include "common/net/grpc_runtime.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "absl/synchronization/notification.h"
#include "common/base/process.h"

namespace expertmesh::net {

QueuePoller::QueuePoller(grpc::CompletionQueue* queue)
    : queue_(queue), thread_([queue] {
        void* tag = nullptr;
        bool ok = false;
        while (queue->Next(&tag, &ok)) {
          AfterOperation();
          static_cast<Tag*>(tag)->Proceed(ok);
        }
      }) {}

QueuePoller::~QueuePoller() {
  queue_->Shutdown();
  thread_.join();
}

QueuePulse::QueuePulse(grpc::CompletionQueue* queue) : queue_(queue) {
  absl::MutexLock lock(&mutex_);
  Arm();
}

QueuePulse::~QueuePulse() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    alarm_.Cancel();
  }
  over_.WaitForNotification();
}

void QueuePulse::Proceed(bool) {
  pulse_.Beat();
  {
    absl::MutexLock lock(&mutex_);
    if (!stopping_) {
      Arm();
      return;
    }
  }
  over_.Notify();
}

void QueuePulse::Arm() {
  BeforeOperation();
  const gpr_timespec period =
      gpr_time_from_millis(absl::ToInt64Milliseconds(kPulsePeriod), GPR_TIMESPAN);
  alarm_.Set(queue_, gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), period), static_cast<Tag*>(this));
}

absl::Duration QueuePoller::CpuTime() {
  clockid_t clock = {};
  timespec used = {};
  const bool known = pthread_getcpuclockid(thread_.native_handle(), &clock) == 0 &&
                     clock_gettime(clock, &used) == 0;
  return known ? absl::DurationFromTimespec(used) : absl::ZeroDuration();
}

int DefaultPollers() {
  const int cores = AvailableCores();
  return cores <= 4 ? 1 : std::clamp(cores / 4, 1, 4);
}

bool LiveCalls::Add(const std::shared_ptr<LiveCall>& call) {
  absl::MutexLock lock(&mutex_);
  if (stopped_) {
    return false;
  }
  calls_.emplace(call.get(), call);
  return true;
}

void LiveCalls::Remove(const LiveCall* call) {
  absl::MutexLock lock(&mutex_);
  calls_.erase(call);
}

std::vector<std::shared_ptr<LiveCall>> LiveCalls::Stop() {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
  return All();
}

std::vector<std::shared_ptr<LiveCall>> LiveCalls::All() const {
  std::vector<std::shared_ptr<LiveCall>> calls;
  calls.reserve(calls_.size());
  for (const auto& [key, weak] : calls_) {
    if (std::shared_ptr<LiveCall> call = weak.lock()) {
      calls.push_back(std::move(call));
    }
  }
  return calls;
}

bool LiveCalls::stopped() const {
  absl::MutexLock lock(&mutex_);
  return stopped_;
}

absl::flat_hash_set<std::string> LiveCalls::Peers() const {
  std::vector<std::shared_ptr<LiveCall>> calls;
  {
    absl::MutexLock lock(&mutex_);
    calls = All();
  }
  absl::flat_hash_set<std::string> peers;
  for (const std::shared_ptr<LiveCall>& call : calls) {
    if (std::string peer = call->peer(); !peer.empty()) {
      peers.insert(std::move(peer));
    }
  }
  return peers;
}

bool LiveCalls::AwaitNone(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return calls_.empty(); };
  return mutex_.AwaitWithTimeout(absl::Condition(&none), timeout);
}

GrpcRuntime::GrpcRuntime(int pollers) {
  const int count = pollers > 0 ? pollers : DefaultPollers();
  for (int i = 0; i < count; ++i) {
    queues_.push_back(server_builder_.AddCompletionQueue());
    pollers_.push_back(std::make_unique<QueuePoller>(queues_.back().get()));
    pulses_.push_back(std::make_unique<QueuePulse>(queues_.back().get()));
  }
}

GrpcRuntime::~GrpcRuntime() {
  for (const std::shared_ptr<LiveCall>& call : calls_.Stop()) {
    call->Abort(absl::CancelledError("the client is shutting down"));
  }
  calls_.AwaitNone(absl::InfiniteDuration());
}

void GrpcRuntime::Flush(const std::function<void()>& also) {
  struct Barrier final : Tag {
    explicit Barrier(const std::function<void()>& function) : also(function) {}
    void Proceed(bool) override {
      if (also) {
        also();
      }
      passed.Notify();
    }
    const std::function<void()>& also;
    absl::Notification passed;
  };
  for (const auto& queue : queues_) {
    Barrier barrier(also);
    grpc::Alarm alarm;
    alarm.Set(queue.get(), gpr_now(GPR_CLOCK_REALTIME), static_cast<Tag*>(&barrier));
    barrier.passed.WaitForNotification();
  }
}

absl::Time GrpcRuntime::AwakeSince() const {
  absl::Time since = absl::InfinitePast();
  for (const std::unique_ptr<QueuePulse>& pulse : pulses_) {
    since = std::max(since, pulse->pulse().AwakeSince());
  }
  return since;
}

std::optional<Stall> GrpcRuntime::CurrentStall() const {
  for (size_t i = 0; i < pulses_.size(); ++i) {
    const Pulse& pulse = pulses_[i]->pulse();
    const uint64_t beats = pulse.beats();
    if (pulse.IsMissing()) {
      return Stall{beats * pulses_.size() + i, pollers_[i]->CpuTime()};
    }
  }
  return std::nullopt;
}

grpc::CompletionQueue* GrpcRuntime::NextQueue() {
  return queues_[next_.fetch_add(1, std::memory_order_relaxed) % queues_.size()].get();
}

}  // namespace expertmesh::net
