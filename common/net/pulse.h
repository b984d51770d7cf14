// Tells whether a thread that should come round often does: a process that was stopped, or whose
// thread was busy, has heard nothing of others meanwhile, and must not hold that against them.
#ifndef EXPERTMESH_COMMON_NET_PULSE_H_
#define EXPERTMESH_COMMON_NET_PULSE_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace expertmesh::net {

// Between two beats, and how much later than that a beat may come before it counts as a pause.
inline constexpr absl::Duration kPulsePeriod = absl::Milliseconds(200);
inline constexpr absl::Duration kPulseSlack = absl::Milliseconds(100);

// Thread-safe.
class Pulse {
 public:
  // The first beat is due a period from now. `clock` must outlive the pulse.
  explicit Pulse(Clock* clock);

  // The thread has come round, and will again in a period.
  void Beat();

  // Since when it has come round without a pause: InfinitePast when there was none, now while a
  // beat is missing.
  absl::Time AwakeSince() const;

  // Beats so far, and whether the next is missing.
  uint64_t beats() const;
  bool IsMissing() const;

 private:
  Clock* const clock_;
  mutable absl::Mutex mutex_;
  uint64_t beats_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time due_ ABSL_GUARDED_BY(mutex_);
  absl::Time awake_since_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_PULSE_H_
