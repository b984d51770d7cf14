// The way from a computed or refused batch back to its router, and the counting of it.
#ifndef EXPERTMESH_EXPERT_SERVICE_REPLY_SENDER_H_
#define EXPERTMESH_EXPERT_SERVICE_REPLY_SENDER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "common/transport/transport.h"
#include "expert_service/batch_queue.h"
#include "expert_service/compute_response.h"
#include "expert_service/merged_batch.h"
#include "expert_service/node_metrics.h"

namespace expertmesh::node {

// Thread-safe. Never blocks.
class ReplySender {
 public:
  // Frames have at most `max_frame_bytes`, unless a single row is larger. `metrics` must outlive
  // it.
  ReplySender(size_t max_frame_bytes, NodeMetrics* metrics)
      : max_frame_bytes_(max_frame_bytes), metrics_(metrics) {}

  // Answers `queued` with its rows of `merged`, the first of which is `first_row`. Its times are
  // complete. False when the stream is gone or its peer does not read: the batch is counted as
  // dropped, and others of the stream are not worth computing either.
  bool SendPartials(const QueuedBatch& queued, const MergedBatch& merged, size_t first_row) const;

  // Answers a batch with `status`, which is not OK.
  void SendError(FrameSink& replies, uint64_t batch_id, const absl::Status& status) const;

 private:
  void RecordEncodingError(uint32_t layer, const PartialRows& answer) const;

  const size_t max_frame_bytes_;
  NodeMetrics* const metrics_;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_REPLY_SENDER_H_
