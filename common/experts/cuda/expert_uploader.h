// Packs an expert and brings it to the device. Private to the room.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_EXPERT_UPLOADER_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_EXPERT_UPLOADER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/cuda/pinned_memory.h"
#include "common/cuda/stream.h"
#include "common/experts/cuda/cuda_expert.h"
#include "common/experts/cuda/expert_layout.h"
#include "common/model/expert_weights.h"

namespace expertmesh::experts {

// Packs one part of an expert into pinned memory while the part before it is copied. Keeps its
// memory. Not thread-safe.
class ExpertUploader {
 public:
  static absl::StatusOr<std::unique_ptr<ExpertUploader>> Create(int device);

  // Fills `expert`, which was allocated for `weights`. Returns when it is complete, or when nothing
  // of it is under way any more; or with a status that says that the device is lost.
  absl::Status Upload(const ExpertWeights& weights, const CudaExpert& expert);

 private:
  // One half of the staging memory.
  struct Half {
    cuda::PinnedMemory memory;
    cuda::Event copied;
  };

  explicit ExpertUploader(int device) : device_(device) {}
  absl::Status Enqueue(const ExpertWeights& weights, const CudaExpert& expert);
  // `pack` packs one of `groups` groups of `group_bytes` each, which go to `target`.
  absl::Status EnqueueGroups(size_t groups, size_t group_bytes, uint8_t* target,
                             absl::FunctionRef<void(size_t group, uint8_t* out)> pack);
  absl::Status Copy(uint8_t* target, Half& half, size_t bytes);

  const int device_;
  cuda::Stream stream_;
  Half halves_[2];
  size_t next_half_ = 0;
  GroupPacker packer_;
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_EXPERT_UPLOADER_H_
