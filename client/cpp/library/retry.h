// Which requests that failed are sent again, and when. What may be sent again stands in the
// contract (expertmesh/v1/errors.proto); how often, and how much later, is decided here.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_RETRY_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_RETRY_H_

#include <cstdint>
#include <map>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/timer_queue.h"

namespace expertmesh::client {

// What a second time does to a request that has been carried out.
enum class Repetition {
  kHarmless,
  // It is refused, or does more. Sent again only where the router said that it did nothing.
  kNotTheSame,
};

// An error that says nothing of what became of the request: the call, or its answer, was lost.
bool IsLostCall(const absl::Status& why);

// Thread-safe.
class RetryPolicy {
 public:
  // `max_attempts`: times that one request is sent at most; 1: never again.
  explicit RetryPolicy(uint32_t max_attempts) : max_attempts_(max_attempts) {}

  // How long to wait until a request is sent again that was sent `attempts` times and failed, the
  // last time with `why`. Nothing: the error is final.
  std::optional<absl::Duration> After(const absl::Status& why, uint32_t attempts);

  uint32_t max_attempts() const { return max_attempts_; }

  // A request was answered: what has been spent on others comes back, a fifth of a retry for each.
  void Answered();

 private:
  // Retries that are left, so that a mesh in trouble is not asked more than it was before.
  static constexpr double kFullBudget = 1000;

  bool Spend() ABSL_LOCKS_EXCLUDED(mutex_);

  const uint32_t max_attempts_;
  absl::Mutex mutex_;
  double budget_ ABSL_GUARDED_BY(mutex_) = kFullBudget;
  absl::BitGen random_ ABSL_GUARDED_BY(mutex_);
};

// Requests that wait until they are sent again. Thread-safe.
class RetryTimers {
 public:
  using Resume = absl::AnyInvocable<void(const absl::Status&)>;

  // `timers`, on Clock::Real(), must outlive this.
  explicit RetryTimers(TimerQueue* timers) : timers_(timers) {}

  // Calls `resume` once: with OK after `delay`, or with CANCELLED at the end of this; never with a
  // lock held.
  void Wait(absl::Duration delay, Resume resume);

  // Ends all waits, and waits for a `resume` that is running. Later ones end at once.
  void Close();

 private:
  struct Waiting {
    TimerQueue::Id timer = 0;
    Resume resume;
  };

  void Fire(uint64_t id);

  TimerQueue* const timers_;
  absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_RETRY_H_
