// The seam for time: everything that reads a clock or waits takes a Clock, so that tests run on a
// FakeClock and never sleep.
#ifndef EXPERTMESH_COMMON_BASE_CLOCK_H_
#define EXPERTMESH_COMMON_BASE_CLOCK_H_

#include <cstdint>
#include <list>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace expertmesh {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // Monotonic: never goes back, unrelated to the calendar. Compare only values of one clock.
  virtual absl::Time Now() const = 0;

  // Waits on `condition` (held `mutex` is released meanwhile) until it is signalled or Now()
  // reaches `deadline`; may wake early for no reason. True when the deadline has been reached.
  virtual bool WaitUntil(absl::Mutex* mutex, absl::CondVar* condition, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) = 0;

  // The clock of the machine; lives for ever.
  static Clock* Real();
};

// Stands still until advanced.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::UnixEpoch() + absl::Hours(1)) : now_(start) {}

  absl::Time Now() const override;
  bool WaitUntil(absl::Mutex* mutex, absl::CondVar* condition, absl::Time deadline) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  // Moves time on and wakes every waiter whose deadline has come.
  void Advance(absl::Duration by);

  // Blocks until at least `count` threads wait on this clock: lets a test advance time knowing that
  // the code under test has reached its wait.
  void AwaitWaiters(int count) const;

 private:
  struct Waiter {
    absl::Mutex* mutex;
    absl::CondVar* condition;
    absl::Time deadline;
  };

  mutable absl::Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
  std::list<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
};

// Whole microseconds, not below 0.
inline uint64_t ToMicros(absl::Duration duration) {
  const int64_t micros = absl::ToInt64Microseconds(duration);
  return micros < 0 ? 0 : static_cast<uint64_t>(micros);
}

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_CLOCK_H_
