// The frames of one node's plan: its rows and assignments as they go over the wire.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_FRAME_ENCODER_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_FRAME_ENCODER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/wire/message_codec.h"
#include "expertmesh/internal/v1/expert.pb.h"
#include "router_service/batch/batch.h"
#include "router_service/mesh/wire_encoding.h"
#include "router_service/plan/node_plan.h"

namespace expertmesh::batch {

// Rows of `plan` with a finite value that would be infinite as `dtype`; ascending. Counts them.
std::vector<uint32_t> RowsBeyond(const Batch& batch, const plan::NodePlan& plan, Dtype dtype);

// Not thread-safe; keeps memory.
class FrameEncoder {
 public:
  struct Address {
    uint64_t batch_id = 0;
    // Epoch of the view that the batch was planned on.
    uint64_t epoch = 0;
    mesh::WireEncoding encoding;
    // Size that frames are cut to, in bytes.
    uint64_t frame_limit = 0;
    // The router's span of the call; used when the batch has a lead.
    trace::SpanId span = 0;
  };

  // The frames of `plan`, valid until the next call; they may be moved from.
  std::vector<Frame>& Encode(const Batch& batch, const plan::NodePlan& plan,
                             const Address& address);

  size_t MemoryBytes() const;

 private:
  // What all frames of a batch to one node say, but for their rows.
  void DescribeBatch(const Batch& batch, const plan::NodePlan& plan, const Address& address);
  // The assignments of rows [begin, end) of the plan.
  void DescribeRows(const plan::NodePlan& plan, uint32_t begin, uint32_t end);

  internal::v1::ComputeRequest request_;  // Grows to the largest frame.
  std::vector<Frame> frames_;
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_FRAME_ENCODER_H_
