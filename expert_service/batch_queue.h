// Batches of all streams that wait to be computed, and which of them go next.
//
// They wait in one line per layer. The layer whose first batch is most urgent goes next, with as
// many of its batches as fit in `max_group_rows`: they leave as one group, whether they are
// answered per row or per assignment. So nothing waits for a group to fill, and under load groups
// grow by themselves.
//
// Urgency: a batch that has waited longer goes first, and so does one whose deadline is near; the
// key is the earlier of its deadline and its completion + `deadline_window`. Keys of later arrivals
// grow with time, so nothing starves.
//
// A batch whose experts are not in memory is parked: it counts as waiting, and is in no line.
#ifndef EXPERTMESH_EXPERT_SERVICE_BATCH_QUEUE_H_
#define EXPERTMESH_EXPERT_SERVICE_BATCH_QUEUE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/transport/transport.h"
#include "expert_service/received_batch.h"
#include "expert_service/stream_table.h"

namespace expertmesh::node {

struct BatchQueueLimits {
  // Most rows answered together; a batch with more goes alone.
  uint32_t max_group_rows = 8192;
  // Bounds on what waits; at the first that would be passed a batch is refused.
  uint64_t max_queue_rows = 65536;
  uint64_t max_queue_bytes = uint64_t{1} << 30;
  // How long before first-come-first-served yields to a near deadline.
  absl::Duration deadline_window = absl::Milliseconds(100);
};

// A batch, and where its answer goes.
struct QueuedBatch {
  StreamId stream = 0;
  std::shared_ptr<FrameSink> replies;
  std::unique_ptr<ReceivedBatch> batch;
};

// What left the queue in one step.
struct BatchGroup {
  // Batches of one layer to compute together, the most urgent first.
  std::vector<QueuedBatch> batches;
  // Those of the layer whose deadline had passed when their turn came.
  std::vector<QueuedBatch> expired;
};

// Logic only: no threads, no locks, no clock. Not thread-safe.
class BatchQueue {
 public:
  explicit BatchQueue(const BatchQueueLimits& limits) : limits_(limits) {}

  //   RESOURCE_EXHAUSTED  names the limit that `batch` would pass.
  absl::Status CheckRoom(const ReceivedBatch& batch) const;

  // Adds a batch for which there is room.
  void Add(QueuedBatch queued);

  // As Add, but the batch is in no line until it is taken out again and added. The ticket names it.
  uint64_t Park(QueuedBatch queued);
  // Nothing where it was taken out before, with its stream or with all.
  std::optional<QueuedBatch> Unpark(uint64_t ticket);

  // Moves the most urgent group into `group`, whose lists are empty. The queue is not empty.
  void TakeGroup(absl::Time now, BatchGroup* group);

  // Takes out all batches of one stream, and all batches, those that are parked included.
  std::vector<QueuedBatch> TakeStream(StreamId stream);
  std::vector<QueuedBatch> TakeAll();

  // Whether there is no group to take.
  bool empty() const { return lines_.empty(); }
  // Rows that wait, of all layers.
  uint64_t rows() const { return rows_; }
  // Those of them that are in a line.
  uint64_t rows_in_line() const { return rows_ - parked_rows_; }
  uint64_t batches() const { return batches_; }

 private:
  using Key = std::pair<absl::Time, uint64_t>;  // Urgency, then order of arrival.
  using Line = std::map<Key, QueuedBatch>;

  void Count(const ReceivedBatch& batch);
  void Uncount(const ReceivedBatch& batch);
  QueuedBatch TakeFrom(Line* line, Line::iterator position);
  QueuedBatch TakeParked(std::map<uint64_t, QueuedBatch>::iterator position);

  const BatchQueueLimits limits_;
  std::map<uint32_t, Line> lines_;          // By layer; none is empty.
  std::map<uint64_t, QueuedBatch> parked_;  // By ticket.
  uint64_t parked_rows_ = 0;
  uint64_t next_ticket_ = 1;
  uint64_t next_arrival_ = 0;
  uint64_t batches_ = 0;
  uint64_t rows_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_BATCH_QUEUE_H_
