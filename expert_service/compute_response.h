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

namespace expertmesh::node {

// The one frame that answers a batch with an error. `status` is not OK.
Frame EncodeError(uint64_t batch_id, const absl::Status& status);

// The result of one batch: [rows, d_model] floats that `owner` keeps alive.
struct BatchResult {
  uint64_t batch_id = 0;
  const float* partials = nullptr;
  size_t rows = 0;
  size_t d_model = 0;
  std::shared_ptr<const void> owner;
  uint64_t queue_us = 0;
  uint64_t compute_us = 0;
  // Type they are to travel in, any of the wire.
  DType dtype = DType::kF32;
  // Each frame has its checksum.
  bool checksums = false;
};

// Frames of consecutive rows, as many rows each as fit in `max_frame_bytes` (one row at least).
// kF32: the rows are shared with `owner`, not copied; else they are converted, each by itself.
// A row with finite values beyond the range of `dtype` goes as kF32, in a frame of such rows only:
// what becomes of a row depends on that row alone. Appends these to `widened`. Timings are in the
// last frame.
std::vector<Frame> EncodeResult(const BatchResult& result, size_t max_frame_bytes,
                                std::vector<size_t>* widened);

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_COMPUTE_RESPONSE_H_
