// Calls functions at points in time, on one thread of its own.
#ifndef EXPERTMESH_COMMON_BASE_TIMER_QUEUE_H_
#define EXPERTMESH_COMMON_BASE_TIMER_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace expertmesh {

// Thread-safe. Callbacks run one after the other on the queue's thread and must be short; they may
// call Schedule and Cancel. Nothing is allocated for a callback of two pointers, once as many were
// pending before.
class TimerQueue {
 public:
  using Id = uint64_t;
  using Callback = absl::AnyInvocable<void()>;

  // `clock` must outlive the queue.
  explicit TimerQueue(Clock* clock);
  // Drops what is pending and waits for a callback that is running.
  ~TimerQueue();
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  // Never 0: that is no timer, and may be given to Cancel and CancelAndWait.
  Id Schedule(absl::Time when, Callback callback);

  // True when the callback has not started and never will. Does not wait for one that is running.
  bool Cancel(Id id);

  // Cancels, or waits until the callback has run: afterwards it does not run. Not from a callback,
  // nor with a lock held that the callback wants.
  void CancelAndWait(Id id);

 private:
  // A timer, or a free place for one. Its id has its place in the lower bits and its number, which
  // grows with each, above them: so among equal times the lower id is the earlier.
  struct Timer {
    absl::Time when;
    Id id = 0;             // 0: free.
    uint32_t in_heap = 0;  // Where in heap_.
    Callback callback;
  };

  void Run();
  Timer* Find(Id id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Its callback, taken out.
  Callback Remove(Timer& timer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Before(uint32_t a, uint32_t b) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Put(size_t at, uint32_t place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Up(size_t at) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Down(size_t at) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Clock* const clock_;
  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_number_ ABSL_GUARDED_BY(mutex_) = 1;
  Id running_ ABSL_GUARDED_BY(mutex_) = 0;
  // Until when the thread sleeps; InfinitePast while it is awake, and looks at the timers itself.
  absl::Time wakes_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::vector<Timer> timers_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint32_t> free_ ABSL_GUARDED_BY(mutex_);  // Places in timers_.
  std::vector<uint32_t> heap_ ABSL_GUARDED_BY(mutex_);  // Likewise; the first is due first.
  std::thread thread_;  // Last: starts when everything else is there.
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_TIMER_QUEUE_H_
