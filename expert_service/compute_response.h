// Answers to batches, as frames.
#ifndef EXPERTMESH_EXPERT_SERVICE_COMPUTE_RESPONSE_H_
#define EXPERTMESH_EXPERT_SERVICE_COMPUTE_RESPONSE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "common/tensor/dtype.h"
#include "common/wire/frame.h"
#include "expert_service/received_batch.h"
#include "expert_service/stage_times.h"

namespace expertmesh::node {

// The one frame that answers a batch with an error. `status` is not OK.
Frame EncodeError(uint64_t batch_id, const absl::Status& status);

// What answers one batch: [rows, d_model] floats that `owner` keeps alive.
struct PartialRows {
  uint64_t batch_id = 0;
  const float* values = nullptr;
  size_t rows = 0;
  size_t d_model = 0;
  std::shared_ptr<const void> owner;
  // All stages of the batch are over.
  StageTimes times;
  // Type they are to travel in, any of the wire.
  Dtype dtype = Dtype::kF32;
  // Each frame has its checksum.
  bool checksums = false;
  Merge merge = {};
};

// Frames of consecutive rows, as many rows each as fit in `max_frame_bytes` (one row at least).
// kF32: the rows are shared with `owner`, not copied; else they are converted, each by itself.
// A row with finite values beyond the range of `dtype` goes as kF32, in a frame of such rows only:
// what becomes of a row depends on that row alone. Appends these to `widened`. Timings are in the
// last frame.
std::vector<Frame> EncodePartials(const PartialRows& answer, size_t max_frame_bytes,
                                  std::vector<size_t>* widened);

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_COMPUTE_RESPONSE_H_
