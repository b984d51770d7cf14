// The queue of one layer: requests that wait together leave together.
//
// Adaptive by default: an idle layer dispatches at once; while a batch of the layer is in flight,
// arrivals coalesce and leave together when it is done. What closes a batch, whichever comes first:
//   max_batch_tokens     that many tokens wait (also while others are in flight);
//   max_queue_delay      the oldest has waited so long, and the layer is idle;
//   the earliest deadline minus the measured service time of the layer.
// While max_in_flight_tokens are on their way nothing does: more would only wait at the nodes.
//
// Callers in a closed loop ask again as soon as they are answered. The first of them to come back
// would leave alone, and all others wait for it; so where most tokens have been seen to come back
// soon after their batch was answered, the next batch waits for them, at most max_linger_share of
// the service time.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_LAYER_BATCHER_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_LAYER_BATCHER_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/ring_queue.h"
#include "common/base/timer_queue.h"
#include "router_service/batch/forward_job.h"

namespace expertmesh::batch {

struct BatcherOptions {
  // Tokens of a closed batch; a larger request is a batch of its own. At least 1.
  uint64_t max_batch_tokens = 4096;
  // Longest time that the first request of a batch waits for company while the layer is idle. 0:
  // none.
  absl::Duration max_queue_delay = absl::ZeroDuration();
  // 0: none is waited for.
  double max_linger_share = 0.05;
  // Tokens of batches in flight from which on none is closed: enough to keep the nodes busy, and
  // not more than they have room for. At least 1.
  uint64_t max_in_flight_tokens = 32768;
  // Tokens that may wait; more are refused with RESOURCE_EXHAUSTED. At least max_batch_tokens.
  uint64_t max_queue_tokens = 65536;
};

// What a request gets that comes, or still waits, while the router stops.
absl::Status RouterIsStopping();

// Thread-safe.
class LayerBatcher {
 public:
  // `dispatch` gets each closed batch (never empty, in order of arrival), without locks held, on
  // the thread that closed it; it must not block and must lead to one BatchDone. It takes the jobs
  // out, and what memory it leaves in their place serves the next batch. Pointers must outlive the
  // batcher.
  using Dispatch = std::function<void(std::vector<ForwardJobPtr>&& jobs)>;
  LayerBatcher(const BatcherOptions& options, Clock* clock, TimerQueue* timers, Dispatch dispatch);
  // Stops.
  ~LayerBatcher();

  // Fails what waits, and whatever is added later, with UNAVAILABLE.
  void Stop();

  // RESOURCE_EXHAUSTED when the queue is full; the job is not taken then.
  absl::Status Add(ForwardJobPtr job);

  // A dispatched batch of so many tokens has been answered, `service_time` after it was closed.
  void BatchDone(uint64_t tokens, absl::Duration service_time);

 private:
  // What leaves the queue at once.
  struct Leaving {
    std::vector<ForwardJobPtr> batch;  // Empty: none is due.
    // Their callers went away while they waited.
    std::vector<ForwardJobPtr> cancelled;
  };

  void OnTimer();
  // Takes one batch that is due now into `leaving`, which has none; and the cancelled jobs that
  // are met on the way. Sets the timer for what is not due.
  void CloseDue(Leaving* leaving) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // When the waiting jobs must leave at the latest, as things stand.
  absl::Time DueTime() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Close(Leaving* leaving) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Dispatches the batch, if there is one, and whatever is due by then; answers the cancelled.
  void DispatchAll(Leaving leaving);

  const BatcherOptions options_;
  Clock* const clock_;
  TimerQueue* const timers_;
  const Dispatch dispatch_;

  absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  RingQueue<ForwardJobPtr> waiting_ ABSL_GUARDED_BY(mutex_);
  // For batches to be closed: empty, kept for their memory.
  std::vector<std::vector<ForwardJobPtr>> spare_ ABSL_GUARDED_BY(mutex_);
  uint64_t waiting_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time earliest_deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  uint32_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t in_flight_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  // Exponentially weighted mean.
  absl::Duration service_time_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();
  // Tokens of the batch that was answered last, those that have come until `linger_end_`, and the
  // exponentially weighted mean of the latter's share.
  uint64_t answered_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t returned_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time linger_end_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  double return_share_ ABSL_GUARDED_BY(mutex_) = 0.0;
  TimerSlot timer_ ABSL_GUARDED_BY(mutex_);
  absl::Time timer_due_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_LAYER_BATCHER_H_
