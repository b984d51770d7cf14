// What ends a stream of a server in time.
#ifndef EXPERTMESH_COMMON_NET_STREAM_TIMERS_H_
#define EXPERTMESH_COMMON_NET_STREAM_TIMERS_H_

#include <utility>

#include "absl/random/random.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"

namespace expertmesh::net {

// Guarded by its owner's mutex, with which callbacks may call it, too.
class StreamTimers {
 public:
  // `queue` is on Clock::Real() and must outlive the timers.
  explicit StreamTimers(TimerQueue* queue) : queue_(queue) {}

  // Nothing happens at InfiniteFuture, and at an infinite age.
  void AtDeadline(absl::Time deadline, TimerQueue::Callback callback) {
    if (deadline != absl::InfiniteFuture()) {
      deadline_ = queue_->Schedule(deadline, std::move(callback));
    }
  }
  void AtAge(absl::Duration age, TimerQueue::Callback callback) {
    // Streams that were opened together do not come back together.
    age_ = After(absl::Uniform(absl::BitGen(), 0.9, 1.1) * age, std::move(callback));
  }

  // The one timer of what is queued: none begins while there is one, until ReaderChecked().
  bool watches_reader() const { return reader_ != 0; }
  void WatchReader(absl::Duration time, TimerQueue::Callback callback) {
    reader_ = After(time, std::move(callback));
  }
  void ReaderChecked() { reader_ = 0; }

  void CancelAll() {
    queue_->Cancel(deadline_);
    queue_->Cancel(age_);
    queue_->Cancel(reader_);
  }

 private:
  TimerQueue::Id After(absl::Duration time, TimerQueue::Callback callback) {
    return time == absl::InfiniteDuration()
               ? 0
               : queue_->Schedule(Clock::Real()->Now() + time, std::move(callback));
  }

  TimerQueue* const queue_;
  TimerQueue::Id deadline_ = 0;
  TimerQueue::Id age_ = 0;
  TimerQueue::Id reader_ = 0;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_STREAM_TIMERS_H_
