// A batch as a router sent it: tokens of one layer with their assignments, complete and checked.
#ifndef EXPERTMESH_EXPERT_SERVICE_RECEIVED_BATCH_H_
#define EXPERTMESH_EXPERT_SERVICE_RECEIVED_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "common/wire/message_codec.h"
#include "expert_service/expert_lease.h"
#include "expert_service/hosted_experts.h"
#include "expert_service/stage_times.h"

namespace expertmesh::node {

// The computation that a batch was part of.
struct Merge {
  // Counted from 1 since the node started; 0: none yet.
  uint64_t id = 0;
  // Batches computed together.
  uint32_t batches = 0;
};

// Movable. Plain data without locks: one thread at a time.
struct ReceivedBatch {
  uint64_t batch_id = 0;
  uint32_t layer = 0;
  StageTimes times;
  Merge merge;
  absl::Time deadline = absl::InfiniteFuture();
  uint32_t total_rows = 0;
  // Type of the partials that are wanted.
  Dtype partials_dtype = Dtype::kF32;
  // A row of partials for each assignment instead of each row.
  bool per_assignment = false;
  // Its frames came with checksums, so those of the answer have them.
  bool checksums = false;
  // Hidden states as they were received, in order of rows. They stay in the received bytes until
  // the batch is computed: converting them into the matrix of the merged batch is the only copy.
  std::vector<TensorFrame> parts;
  // Assignments of row r are [row_begin[r], row_begin[r + 1]).
  std::vector<uint32_t> row_begin;
  std::vector<uint32_t> expert_ids;
  std::vector<float> weights;
  // The experts it was accepted with: they live until the batch is done.
  std::shared_ptr<const HostedLayer> hosted;
  // Where not all that is hosted is in memory: those that it needs, once they are.
  ExpertLease lease;
  // Received bytes it keeps alive.
  size_t bytes = 0;

  // Rows of partials that answer it.
  size_t answer_rows() const { return per_assignment ? expert_ids.size() : total_rows; }
  // One of its experts, in memory.
  const experts::PackedExpert* packed(uint32_t expert) const {
    return lease.empty() ? hosted->experts[expert]->packed() : lease.packed(expert);
  }
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_RECEIVED_BATCH_H_
