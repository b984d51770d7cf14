#include "client/cpp/library/retry.h"

#include <algorithm>
#include <utility>

#include "common/base/clock.h"
#include "common/wire/error_reason.h"

namespace expertmesh::client {
namespace {

// Between attempts on other connections: the first is made at once where the router said so.
constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Seconds(5);
constexpr double kJitter = 0.2;
constexpr double kEarnedByAnswer = 0.2;

// `first`, twice as long with each attempt, up to the longest pause or what `first` is itself.
absl::Duration Grown(absl::Duration first, uint32_t attempts) {
  const uint32_t doublings = std::min<uint32_t>(attempts - 1, 16);
  return std::max(first, std::min(first * (1 << doublings), kLongestPause));
}

// Before the next of `attempts`; nothing where no other would go better.
std::optional<absl::Duration> PauseAfter(const absl::Status& why, uint32_t attempts) {
  const v1::ErrorReason reason = ReasonOf(why);
  if (reason == v1::ERROR_REASON_UNSPECIFIED) {
    return IsLostCall(why) ? std::optional(Grown(kFirstPause, attempts)) : std::nullopt;
  }
  switch (PolicyOf(reason).retry()) {
    case v1::RETRY_ELSEWHERE:
      return attempts == 1 ? absl::ZeroDuration() : Grown(kFirstPause, attempts - 1);
    case v1::RETRY_LATER:
      return Grown(std::max(DetailsOf(why).retry_delay, absl::Milliseconds(1)), attempts);
    default:
      return std::nullopt;
  }
}

}  // namespace

// An error without a reason comes from gRPC or from a proxy. These codes then mean that the
// connection, or the call on it, was lost or refused: proxies reset a call whose router has gone,
// for which HTTP/2 has no code of its own, or answer with a status of HTTP; a server that stops
// cancels what it has not begun.
bool IsLostCall(const absl::Status& why) {
  return ReasonOf(why) == v1::ERROR_REASON_UNSPECIFIED &&
         (absl::IsUnavailable(why) || absl::IsInternal(why) || absl::IsUnknown(why) ||
          absl::IsCancelled(why));
}

std::optional<absl::Duration> RetryPolicy::After(const absl::Status& why, uint32_t attempts) {
  if (attempts >= max_attempts_) {
    return std::nullopt;
  }
  const std::optional<absl::Duration> pause = PauseAfter(why, attempts);
  if (!pause.has_value() || !Spend()) {
    return std::nullopt;
  }
  // Callers that failed together do not come back together.
  absl::MutexLock lock(&mutex_);
  return *pause * absl::Uniform(random_, 1.0 - kJitter, 1.0 + kJitter);
}

void RetryPolicy::Answered() {
  absl::MutexLock lock(&mutex_);
  budget_ = std::min(kFullBudget, budget_ + kEarnedByAnswer);
}

bool RetryPolicy::Spend() {
  absl::MutexLock lock(&mutex_);
  if (budget_ < 1) {
    return false;
  }
  budget_ -= 1;
  return true;
}

void RetryTimers::Wait(absl::Duration delay, Resume resume) {
  {
    absl::MutexLock lock(&mutex_);
    if (!closed_) {
      const uint64_t id = next_id_++;
      Waiting& waiting = waiting_[id];
      waiting.resume = std::move(resume);
      waiting.timer =
          timers_->Schedule(Clock::Real()->Now() + delay, [this, id] { this->Fire(id); });
      return;
    }
  }
  resume(absl::CancelledError("the client is shutting down"));
}

void RetryTimers::Fire(uint64_t id) {
  Resume resume;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = waiting_.find(id);
    if (found == waiting_.end()) {
      return;
    }
    resume = std::move(found->second.resume);
    waiting_.erase(found);
    ++running_;
  }
  resume(absl::OkStatus());
  absl::MutexLock lock(&mutex_);
  --running_;
}

void RetryTimers::Close() {
  std::map<uint64_t, Waiting> waiting;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    waiting.swap(waiting_);
  }
  for (auto& [id, one] : waiting) {
    timers_->Cancel(one.timer);
    timers_->AwaitEnd(one.timer);
    one.resume(absl::CancelledError("the client is shutting down"));
  }
  absl::MutexLock lock(&mutex_);
  const auto none_runs = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_ == 0; };
  mutex_.Await(absl::Condition(&none_runs));
}

}  // namespace expertmesh::client
