// Puts the frames of one compute stream together into batches, and refuses whatever cannot be
// computed. Everything is checked against the bytes that are really there before any memory of a
// claimed size is used.
#ifndef EXPERTMESH_EXPERT_SERVICE_BATCH_ASSEMBLY_H_
#define EXPERTMESH_EXPERT_SERVICE_BATCH_ASSEMBLY_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/model/model_description.h"
#include "common/wire/frame.h"
#include "common/wire/message_codec.h"
#include "expert_service/hosted_experts.h"
#include "expert_service/received_batch.h"

namespace expertmesh::node {

struct AssemblyLimits {
  // Largest `total_rows`, and most assignments of a batch with `per_assignment`.
  uint32_t max_batch_rows = 8192;
  // Largest frame, in bytes.
  size_t max_frame_bytes = size_t{64} << 20;
  // Received bytes of unfinished batches that one stream may keep here.
  size_t max_open_bytes = size_t{256} << 20;
};

// For one stream; not thread-safe.
class BatchAssembler {
 public:
  // What one frame led to. `batch` when it completed one; else, when `status` is not OK, the one
  // answer that batch `batch_id` gets (its further frames are dropped); else nothing to do yet.
  struct Outcome {
    uint64_t batch_id = 0;
    absl::Status status;
    std::unique_ptr<ReceivedBatch> batch;
  };

  // The pointers must outlive the assembler.
  BatchAssembler(const AssemblyLimits& limits, const ModelDescription* model,
                 const HostedExperts* hosted, Clock* clock);

  // Statuses:
  //   INVALID_ARGUMENT     malformed, out of order, or not fitting the model; names the field.
  //   FAILED_PRECONDITION  experts that are not held here; names the layer and the experts.
  //   DEADLINE_EXCEEDED    the deadline has passed.
  //   DATA_LOSS            the frame's checksum is not that of its bytes.
  //   RESOURCE_EXHAUSTED   the frame or the unfinished batches are over their limit.
  Outcome Add(const Frame& frame);

  size_t open_bytes() const { return open_bytes_; }
  size_t open_batches() const { return open_.size(); }

 private:
  using Request = TensorMessage<internal::v1::ComputeRequest>;

  absl::Status AddToBatch(Request* request, size_t frame_bytes,
                          std::unique_ptr<ReceivedBatch>* completed);
  absl::Status CheckFrame(const Request& request, size_t frame_bytes) const;
  absl::StatusOr<ReceivedBatch*> OpenOrFind(const internal::v1::ComputeRequest& message);
  absl::Status CheckContinues(const ReceivedBatch& batch, const Request& request) const;
  // Held now, as of the whole batch; pins them.
  absl::Status PinExperts(ReceivedBatch* batch) const;
  void RemoveOpen(uint64_t batch_id);
  void RememberFailed(uint64_t batch_id);

  const AssemblyLimits limits_;
  const ModelDescription* const model_;
  const HostedExperts* const hosted_;
  Clock* const clock_;

  absl::flat_hash_map<uint64_t, std::unique_ptr<ReceivedBatch>> open_;
  size_t open_bytes_ = 0;
  // Batches that were answered with an error before their last frame; the oldest is forgotten
  // first.
  absl::flat_hash_set<uint64_t> failed_;
  std::deque<uint64_t> failed_order_;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_BATCH_ASSEMBLY_H_
