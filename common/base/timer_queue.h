// Calls functions at points in time, on one thread of its own.
#ifndef EXPERTMESH_COMMON_BASE_TIMER_QUEUE_H_
#define EXPERTMESH_COMMON_BASE_TIMER_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <thread>
#include <utility>
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

  // Never 0: that is no timer, and may be given to Cancel and AwaitEnd.
  Id Schedule(absl::Time when, Callback callback);

  // True when the callback has not started and never will. Does not wait for one that is running.
  bool Cancel(Id id);

  // Waits while the callback is running: after Cancel, it does not run any more. Not from a
  // callback, nor with a lock held that the callback wants.
  void AwaitEnd(Id id);

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

// A place for one timer at a time. Guarded by its owner's mutex, with which the callbacks may call
// it, too.
class TimerSlot {
 public:
  // `timers` must outlive the slot.
  explicit TimerSlot(TimerQueue* timers) : timers_(timers) {}

  // In place of the one before, if that has not begun.
  void Set(absl::Time when, TimerQueue::Callback callback) {
    Cancel();
    current_ = timers_->Schedule(when, std::move(callback));
  }
  void Cancel() {
    if (current_ != 0 && !timers_->Cancel(current_)) {
      begun_ = current_;  // Those before it have ended: callbacks run one after the other.
    }
    current_ = 0;
  }

  // For the owner's end: cancels, and returns what its thread must give to TimerQueue::AwaitEnd
  // without the mutex. After that no callback of the slot runs.
  TimerQueue::Id CancelForGood() {
    Cancel();
    return begun_;
  }

 private:
  TimerQueue* const timers_;
  TimerQueue::Id current_ = 0;
  TimerQueue::Id begun_ = 0;  // The last one that came before it could be cancelled.
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_TIMER_QUEUE_H_
