// The rows of a batch that one node computes, while they are on their way.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_NODE_BATCH_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_NODE_BATCH_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "common/tensor/aligned_buffer.h"
#include "common/trace/trace_context.h"
#include "common/wire/message_codec.h"
#include "expertmesh/internal/v1/expert.pb.h"

namespace expertmesh::mesh {

class MeshView;

// What a node says of how it computed a batch, in microseconds of its clock.
struct NodeReport {
  // From the first frame to the last, in the queue, and computing.
  uint64_t receive_us = 0;
  uint64_t queue_us = 0;
  uint64_t compute_us = 0;
  // Which of the node's computations it was part of, and batches in that; 0: it does not say.
  uint64_t merge_id = 0;
  uint32_t merged_batches = 0;
};

// Filled by its owner before NodeLink::Send; then the link's until Done.
struct NodeBatch {
  virtual ~NodeBatch() = default;

  // Token rows that the node gets, and rows that it answers with.
  uint32_t rows = 0;
  uint32_t answer_rows = 0;
  // What the node does with them.
  uint32_t assignments = 0;
  uint32_t d_model = 0;
  // The router's span of the call, where it is sampled and so for sure kept; else not valid.
  trace::TraceContext trace;
  // Type in which partials come; rows that are beyond it come as kF32.
  Dtype partials_dtype = Dtype::kF32;
  // [answer_rows, d_model] of kept_dtype; complete when the batch is done without error.
  std::shared_ptr<AlignedBuffer> partials;
  // As they come, if that is a type to compute with; kF32 once a row has come wider.
  Dtype kept_dtype = Dtype::kF32;
  // Rows received so far; they come in order.
  uint32_t received = 0;
  // The received rows with a NaN or an infinity; ascending.
  std::vector<uint32_t> nonfinite_rows;
  // As its last frame said.
  NodeReport report;
  // It was given up since it was overdue, and other nodes can serve it.
  bool overdue = false;

  bool complete() const { return received == answer_rows; }

  // Why a frame does not continue this batch; OK when it does.
  absl::Status CheckContinues(const TensorMessage<internal::v1::ComputeResponse>& answer) const;
  // Decodes the next rows of the answer.
  void Receive(const TensorFrame& next);
  // As before it was filled; keeps memory.
  void Clear();

  // By `now`, other nodes can serve all of it: there is no need to wait for one that is overdue.
  // Called with the link's lock held, before Done.
  virtual bool CanGoElsewhere(const MeshView& now) const = 0;

  // Called once, from any thread, without locks held. On error nothing of this batch counts.
  virtual void Done(const absl::Status& status) = 0;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_NODE_BATCH_H_
