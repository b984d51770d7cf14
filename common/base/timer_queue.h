// Calls functions at points in time, on one thread of its own.
#ifndef EXPERTMESH_COMMON_BASE_TIMER_QUEUE_H_
#define EXPERTMESH_COMMON_BASE_TIMER_QUEUE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace expertmesh {

// Thread-safe. Callbacks run one after the other on the queue's thread and must be short; they may
// call Schedule and Cancel.
class TimerQueue {
 public:
  using Id = uint64_t;

  // `clock` must outlive the queue.
  explicit TimerQueue(Clock* clock);
  // Drops what is pending and waits for a callback that is running.
  ~TimerQueue();
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  // Never 0: that is no timer, and may be given to Cancel and CancelAndWait.
  Id Schedule(absl::Time when, std::function<void()> callback);

  // True when the callback has not started and never will. Does not wait for one that is running.
  bool Cancel(Id id);

  // Cancels, or waits until the callback has run: afterwards it does not run. Not from a callback,
  // nor with a lock held that the callback wants.
  void CancelAndWait(Id id);

 private:
  void Run();

  Clock* const clock_;
  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Id next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  Id running_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::pair<absl::Time, Id>, std::function<void()>> pending_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<Id, absl::Time> when_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // Last: starts when everything else is there.
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_TIMER_QUEUE_H_
