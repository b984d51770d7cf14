// One batch at a time on the device, in its own stream and memory. Private to the room.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_BATCH_SLOT_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_BATCH_SLOT_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/cuda/device_memory.h"
#include "common/cuda/pinned_memory.h"
#include "common/cuda/stream.h"
#include "common/experts/backend.h"
#include "common/experts/cuda/batch_tables.h"
#include "common/experts/cuda/cuda_backend.h"
#include "common/experts/cuda/product.h"

namespace expertmesh::experts {

// Start and Finish in turns. Not thread-safe: but each may be called on another thread.
class BatchSlot {
 public:
  static absl::StatusOr<std::unique_ptr<BatchSlot>> Create(const CudaBackendOptions& options);

  Arrangement arrangement() const { return product_->arrangement(); }

  // Begins with rows from `begin` on of `batch`, which is well formed and of CudaExperts, as many
  // as its memory may be used for; end_row() tells how many. After an error nothing is under way,
  // and Finish must not be called.
  absl::Status Start(const GroupedBatch& batch, size_t begin);
  size_t end_row() const { return end_; }

  // Waits for them, and writes their partials. After an error nothing is under way, unless the
  // status says that the device is lost.
  absl::Status Finish();

 private:
  // Where the tables lie in pinned memory and, at the same places, on the device.
  struct Places {
    size_t experts = 0;
    size_t narrow = 0;
    size_t wide = 0;
    size_t row_of = 0;
    size_t scale = 0;
    size_t row_begin = 0;
    size_t terms = 0;
    size_t hidden = 0;
    size_t bytes = 0;
  };

  explicit BatchSlot(const CudaBackendOptions& options)
      : device_(options.device),
        dtype_(options.compute_dtype),
        max_scratch_bytes_(options.max_scratch_bytes) {}

  size_t EndOfPart(const GroupedBatch& batch, size_t begin) const;
  absl::Status Enqueue();
  absl::Status MakeRoom();
  Places PlaceTables() const;
  void FillTables(const Places& places);
  absl::Status EnqueueKernels(const Places& places);

  const int device_;
  const Dtype dtype_;
  const size_t max_scratch_bytes_;

  cuda::Stream stream_;
  std::unique_ptr<Product> product_;
  BatchTables tables_;
  cuda::PinnedMemory host_tables_;
  cuda::PinnedMemory host_sums_;
  cuda::DeviceMemory device_tables_;
  cuda::DeviceMemory gathered_;
  cuda::DeviceMemory activations_;
  cuda::DeviceMemory outputs_;
  cuda::DeviceMemory sums_;

  GroupedBatch batch_;
  size_t begin_ = 0;
  size_t end_ = 0;
  size_t stride_ = 0;  // Elements of a row of hidden states.
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_BATCH_SLOT_H_
