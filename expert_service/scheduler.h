// Decides what the node computes next.
//
// Batches of all streams wait in one queue per layer. Whenever the backend is free, the layer whose
// head is most urgent is taken, with as many of its waiting batches as fit in `max_batch_rows`:
// they leave as one, whether they are answered per row or per assignment. So nothing waits for a
// batch to fill, and under load batches grow by themselves.
//
// A small batch that finds the node idle is computed at once, on the thread that brought it, which
// saves a change of threads each way.
//
// Urgency: a batch that has waited longer goes first, and so does one whose deadline is near; the
// key is the earlier of its deadline and its completion + `deadline_window`. Keys of later arrivals
// grow with time, so nothing starves.
#ifndef EXPERTMESH_EXPERT_SERVICE_SCHEDULER_H_
#define EXPERTMESH_EXPERT_SERVICE_SCHEDULER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/experts/backend.h"
#include "common/transport/transport.h"
#include "expert_service/batch.h"
#include "expert_service/batch_computer.h"
#include "expert_service/node_metrics.h"

namespace expertmesh::node {

struct SchedulerOptions {
  // Most rows answered together; at least those of the largest batch that is enqueued.
  uint32_t max_batch_rows = 8192;
  // Bounds on what waits; at the first that would be passed a batch is refused.
  uint64_t max_queue_rows = 65536;
  uint64_t max_queue_bytes = uint64_t{1} << 30;
  // Largest answer frame in bytes, unless a single row is larger.
  size_t reply_frame_bytes = size_t{1} << 20;
  // A batch of at most so many parameters to multiply with, each assignment counted, is small. 0:
  // none is.
  uint64_t inline_parameters = 0;
  // How long before first-come-first-served yields to a near deadline.
  absl::Duration deadline_window = absl::Milliseconds(100);
};

// Thread-safe.
class Scheduler {
 public:
  using StreamId = uint64_t;

  struct Load {
    // Accepted and not yet answered.
    uint32_t batches = 0;
    uint64_t rows = 0;
    // Of these, waiting.
    uint64_t waiting_rows = 0;
  };

  // The pointers must outlive the scheduler.
  Scheduler(const SchedulerOptions& options, experts::Backend* backend, Clock* clock,
            NodeMetrics* metrics);
  // Stop().
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // A stream whose batches are answered through `replies`.
  StreamId OpenStream(std::shared_ptr<FrameSink> replies);

  // No more batches come. If the peer is gone, what waits is dropped, and what is being computed is
  // not sent; if it has only closed its sending side, everything is answered.
  void CloseStream(StreamId stream);

  // Takes a complete batch, and computes it if it is small and nothing else is there. It is
  // answered through its stream, exactly once, unless the stream goes.
  // On error it was not taken, and the caller answers:
  //   INVALID_ARGUMENT    a batch of that id is in flight on the stream.
  //   RESOURCE_EXHAUSTED  the queue is full.
  //   UNAVAILABLE         stopped, or the stream is closed.
  absl::Status Enqueue(StreamId stream, std::unique_ptr<Batch> batch);

  Load load() const;

  // Waits until everything accepted is answered; false when `deadline` came first.
  bool AwaitIdle(absl::Time deadline) const;

  // Refuses new batches, answers waiting ones with UNAVAILABLE, waits for the one being computed.
  void Stop();

 private:
  struct Entry {
    StreamId stream = 0;
    std::shared_ptr<FrameSink> replies;
    std::unique_ptr<Batch> batch;
  };
  using Key = std::pair<absl::Time, uint64_t>;  // Urgency, then order of arrival.
  using Queue = std::map<Key, Entry>;

  struct StreamState {
    std::shared_ptr<FrameSink> replies;
    absl::flat_hash_set<uint64_t> in_flight;  // Batch ids.
  };

  absl::Status Accept(StreamId stream, std::unique_ptr<Batch> batch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Run();
  // Computes and answers one group; whoever calls has set computing_.
  void Serve(std::vector<Entry> group, std::vector<Entry> expired);
  // Lets the next one compute.
  void ComputingDone();
  bool IsSmall(const Batch& batch) const;
  // Takes the next group out of the queues, and apart from it what has expired on the way.
  void TakeGroup(std::vector<Entry>* group, std::vector<Entry>* expired)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Entry TakeFrom(Queue* queue, Queue::iterator position) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Execute(std::vector<Entry> group);
  // Forgets a stream and what waits for it.
  void DropStream(StreamId stream);
  // Takes out of `group` what nobody wants any more.
  void DropGone(std::vector<Entry>* group);
  void CountDropped(const std::vector<Entry>& dropped);
  void SendResult(const Entry& entry, const BatchComputer::Result& result, size_t first_row,
                  absl::Time started, absl::Time finished);
  // Answers all with `status`, which is not OK.
  void Refuse(std::vector<Entry> entries, const absl::Status& status);
  // Their ids may be used again: right before an answer is sent, as the peer may do so at once.
  void ReleaseIds(const std::vector<Entry>& entries);
  // They are answered: no longer in flight.
  void CountAnswered(size_t batches, uint64_t rows);

  const SchedulerOptions options_;
  Clock* const clock_;
  NodeMetrics* const metrics_;
  BatchComputer computer_;  // Of the thread that has set computing_.

  mutable absl::Mutex mutex_;
  absl::CondVar work_;
  mutable absl::CondVar idle_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool computing_ ABSL_GUARDED_BY(mutex_) = false;
  StreamId next_stream_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t next_arrival_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<StreamId, StreamState> streams_ ABSL_GUARDED_BY(mutex_);
  std::map<uint32_t, Queue> waiting_ ABSL_GUARDED_BY(mutex_);  // By layer; none is empty.
  uint64_t waiting_rows_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t batches_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t rows_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;

  absl::Mutex join_mutex_;                           // Stop() may come from several threads.
  std::thread thread_ ABSL_GUARDED_BY(join_mutex_);  // Last: starts when all else is there.
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_SCHEDULER_H_
