// Keeps lines that can come many times a second from filling the log: at most one per interval from
// one place, which says how many were left out.
//
//   if (const std::optional<uint64_t> left_out = limit_.Take()) {
//     spdlog::warn("{} is full{}", name, LeftOutText(*left_out));
//   }
//
//   epoch_line_.Write(absl::StrCat("epoch ", epoch, ": ", count, " nodes usable"));
#ifndef EXPERTMESH_COMMON_BASE_LOG_LIMIT_H_
#define EXPERTMESH_COMMON_BASE_LOG_LIMIT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"

namespace expertmesh {

// For events that say nothing about what holds now. Thread-safe.
class LogLimit {
 public:
  // `clock` must outlive it.
  LogLimit(absl::Duration interval, Clock* clock);

  // How many were left out since the last line when a line may be written now; nothing when this
  // one is left out.
  std::optional<uint64_t> Take();

 private:
  const absl::Duration interval_;
  Clock* const clock_;
  absl::Mutex mutex_;
  absl::Time next_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  uint64_t left_out_ ABSL_GUARDED_BY(mutex_) = 0;
};

// For states that follow one another: the first line is written at once, and of those that come
// within the interval the last one at its end, so that the log ends with what holds. Thread-safe.
class LatestLine {
 public:
  using Writer = std::function<void(const std::string& line)>;

  // `timers`, on `clock`, and `clock` must outlive it. `write` gets each line that is logged, on
  // the thread of Write() or of the timers, one at a time and in order.
  LatestLine(absl::Duration interval, TimerQueue* timers, Clock* clock, Writer write);
  // A line that waits is written now.
  ~LatestLine();
  LatestLine(const LatestLine&) = delete;
  LatestLine& operator=(const LatestLine&) = delete;

  void Write(std::string line);

 private:
  void OnInterval();
  void WriteLocked(const std::string& line) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration interval_;
  Clock* const clock_;
  TimerQueue* const timers_;
  const Writer write_;
  absl::Mutex mutex_;
  TimerSlot timer_ ABSL_GUARDED_BY(mutex_);
  absl::Time next_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::optional<std::string> waiting_ ABSL_GUARDED_BY(mutex_);
  uint64_t left_out_ ABSL_GUARDED_BY(mutex_) = 0;
};

// " (3 lines like it left out)", or nothing for 0.
std::string LeftOutText(uint64_t left_out);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_LOG_LIMIT_H_
