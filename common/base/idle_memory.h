// Gives memory that is no longer used back to the system when the process has come to rest.
//
// While there is traffic freed memory stays in the process, see TuneProcess(); once it has ended,
// or has become a trickle, that gains nothing.
#ifndef EXPERTMESH_COMMON_BASE_IDLE_MEMORY_H_
#define EXPERTMESH_COMMON_BASE_IDLE_MEMORY_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace expertmesh {

// Resident bytes that the process has given back so since it started.
inline std::atomic<uint64_t> returned_bytes{0};

// Decides when. Looks at the process at equal intervals. Not thread-safe.
class RestDetector {
 public:
  // Intervals of rest before memory is given back.
  static constexpr int kIntervals = 5;

  // `moved`: bytes of messages since the start; `resident`: of the process. True when it is at rest
  // and has grown since it gave back last.
  bool Look(uint64_t moved, uint64_t resident);
  // Memory was given back; so much is left.
  void GaveBack(uint64_t resident);

 private:
  // In an interval of rest less than so many bytes move, or than this part of what has moved in a
  // busy one.
  static constexpr uint64_t kTrickle = 64 << 10;
  static constexpr uint64_t kBusyParts = 16;
  // What is not worth it.
  static constexpr uint64_t kSmall = 4 << 20;

  uint64_t moved_ = 0;
  uint64_t busiest_ = 0;  // Bytes in an interval; fades.
  int rested_ = 0;        // Intervals.
  uint64_t left_ = std::numeric_limits<uint64_t>::max();
};

// Looks every second, on a thread of its own.
class IdleMemory {
 public:
  // `shed` frees what is kept to be used again, on that thread; may be empty. `clock` must outlive
  // this.
  IdleMemory(std::function<void()> shed, Clock* clock);
  ~IdleMemory();
  IdleMemory(const IdleMemory&) = delete;
  IdleMemory& operator=(const IdleMemory&) = delete;

 private:
  void Run();
  void GiveBack();

  const std::function<void()> shed_;
  Clock* const clock_;
  RestDetector detector_;  // Used by the thread only.
  absl::Mutex mutex_;
  absl::CondVar stopped_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // Last: starts when everything else is there.
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_IDLE_MEMORY_H_
