// Computes what waits: takes groups of batches out of the queue, submits them to the backend, and
// answers each batch when its group completes.
//
// A group is taken as soon as the backend has room (Backend::preferred_in_flight), by the
// executor's thread. A small batch that finds the node idle is computed at once, on the thread that
// brought it, which saves a change of threads each way. Where not all experts are in memory, a
// batch waits for its own first (resident_experts.h), beside those that have theirs.
#ifndef EXPERTMESH_EXPERT_SERVICE_EXECUTOR_H_
#define EXPERTMESH_EXPERT_SERVICE_EXECUTOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/experts/backend.h"
#include "common/transport/transport.h"
#include "expert_service/batch_queue.h"
#include "expert_service/merged_batch.h"
#include "expert_service/node_metrics.h"
#include "expert_service/received_batch.h"
#include "expert_service/reply_sender.h"
#include "expert_service/resident_experts.h"
#include "expert_service/stream_table.h"

namespace expertmesh::node {

struct ExecutorOptions {
  BatchQueueLimits queue;
  // A batch of at most so many parameters to multiply with, each assignment counted, is small. 0:
  // none is.
  uint64_t inline_parameters = 0;
};

// Thread-safe.
class Executor {
 public:
  struct Load {
    // Accepted and not yet answered.
    uint32_t batches = 0;
    uint64_t rows = 0;
    // The part of these rows that waits.
    uint64_t waiting_rows = 0;
  };

  // The pointers must outlive the executor. `resident` is null where all that is hosted is in
  // memory; else it is stopped before the executor goes.
  Executor(const ExecutorOptions& options, experts::Backend* backend, Clock* clock,
           const ReplySender* reply_sender, NodeMetrics* metrics,
           ResidentExperts* resident = nullptr);
  // Stop().
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

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
  absl::Status Enqueue(StreamId stream, std::unique_ptr<ReceivedBatch> batch);

  Load load() const;

  // Waits until everything accepted is answered; false when `deadline` came first.
  bool AwaitIdle(absl::Time deadline) const;

  // Refuses new batches, answers waiting ones with UNAVAILABLE, waits for those in the backend.
  void Stop();

 private:
  // One group from the queue to its answers. Belongs to one step at a time.
  struct Run {
    BatchGroup group;
    MergedBatch merged;
  };

  // Checks whether there is room for a batch, and counts it in.
  absl::StatusOr<QueuedBatch> Accept(StreamId stream, std::unique_ptr<ReceivedBatch> batch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes a batch for which there must be memory first.
  absl::Status EnqueueAbsent(StreamId stream, std::unique_ptr<ReceivedBatch> batch,
                             std::vector<uint32_t> experts);
  // The experts of a parked batch are there, or will not be.
  void OnExperts(uint64_t ticket, absl::StatusOr<ExpertLease> lease);
  bool IsSmall(const ReceivedBatch& batch) const;
  // What the executor's thread does.
  void SubmitGroups();
  // Takes the next group out of the queue, for a run that is free.
  Run* TakeGroup() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Answers what has expired, drops what is no longer wanted, and submits the rest.
  void Submit(Run* run);
  // The backend has computed it, or failed to.
  void Complete(Run* run, const absl::Status& status);
  void SendPartials(Run* run);
  // Lets it be used for the next group.
  void Release(Run* run);

  // Closes a stream whose peer is gone and drops what waits for it.
  void DropStream(StreamId stream);
  // Takes out of `batches` those whose stream is gone.
  void DropUnwanted(std::vector<QueuedBatch>* batches);
  void CountDropped(const std::vector<QueuedBatch>& dropped);
  // Answers all with `status`, which is not OK, and empties the list.
  void Refuse(std::vector<QueuedBatch>* batches, const absl::Status& status);
  // Their ids may be used again: right before an answer is sent, as the peer may do so at once.
  void ReleaseIds(const std::vector<QueuedBatch>& batches);
  // They are answered: no longer in flight.
  void CountAnswered(size_t batches, uint64_t rows);

  const ExecutorOptions options_;
  experts::Backend* const backend_;
  Clock* const clock_;
  const ReplySender* const reply_sender_;
  NodeMetrics* const metrics_;
  ResidentExperts* const resident_;
  std::atomic<uint64_t> merges_{0};  // Computations begun.
  std::vector<Run> runs_;            // As many as the backend should have in flight.

  mutable absl::Mutex mutex_;
  absl::CondVar work_;
  mutable absl::CondVar idle_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Run*> free_runs_ ABSL_GUARDED_BY(mutex_);
  StreamTable streams_ ABSL_GUARDED_BY(mutex_);
  BatchQueue queue_ ABSL_GUARDED_BY(mutex_);
  uint32_t batches_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t rows_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;

  absl::Mutex join_mutex_;                           // Stop() may come from several threads.
  std::thread thread_ ABSL_GUARDED_BY(join_mutex_);  // Last: starts when all else is there.
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_EXECUTOR_H_
