#include "common/experts/cuda/expert_uploader.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/base/status_macros.h"
#include "common/cuda/cuda_status.h"
#include "common/experts/cuda/settle.h"

namespace expertmesh::experts {
namespace {

// Bytes of one copy, roughly.
constexpr size_t kCopyBytes = size_t{4} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertUploader>> ExpertUploader::Create(int device) {
  std::unique_ptr<ExpertUploader> uploader(new ExpertUploader(device));
  ASSIGN_OR_RETURN(uploader->stream_, cuda::Stream::Create(device));
  for (Half& half : uploader->halves_) {
    ASSIGN_OR_RETURN(half.copied, cuda::Event::Create(device));
  }
  return uploader;
}

absl::Status ExpertUploader::Upload(const ExpertWeights& weights, const CudaExpert& expert) {
  absl::Status status = Enqueue(weights, expert);
  if (status.ok()) {
    status = stream_.Synchronize();
  }
  return status.ok() ? status : Settle(stream_, std::move(status));
}

absl::Status ExpertUploader::Enqueue(const ExpertWeights& weights, const CudaExpert& expert) {
  RETURN_IF_ERROR(cuda::ToStatus(cudaSetDevice(device_), "cudaSetDevice"));
  const PackedShape& shape = expert.shape();
  const ExpertParts parts(shape, weights);
  RETURN_IF_ERROR(EnqueueGroups(
      shape.up_rows() / kPackedStep, shape.up_group_bytes(), expert.data(),
      [&](size_t group, uint8_t* out) { packer_.PackUp(shape, weights, group, out); }));
  RETURN_IF_ERROR(EnqueueGroups(
      shape.down_rows() / kPackedStep, shape.down_group_bytes(), expert.data() + parts.down,
      [&](size_t group, uint8_t* out) { packer_.PackDown(shape, weights, group, out); }));
  const auto enqueue = [&](const std::vector<float>& values, size_t at) {
    const size_t bytes = values.size() * sizeof(float);
    return EnqueueGroups(1, bytes, expert.data() + at,
                         [&](size_t, uint8_t* out) { std::memcpy(out, values.data(), bytes); });
  };
  if (!weights.up_bias.empty()) {
    RETURN_IF_ERROR(enqueue(PackedUpBias(shape, weights), parts.up_bias));
  }
  if (!weights.down_bias.empty()) {
    RETURN_IF_ERROR(enqueue(PackedDownBias(shape, weights), parts.down_bias));
  }
  return absl::OkStatus();
}

absl::Status ExpertUploader::EnqueueGroups(
    size_t groups, size_t group_bytes, uint8_t* target,
    absl::FunctionRef<void(size_t group, uint8_t* out)> pack) {
  const size_t together = std::max<size_t>(1, kCopyBytes / group_bytes);
  for (size_t begin = 0; begin < groups; begin += together) {
    const size_t end = std::min(groups, begin + together);
    Half& half = halves_[next_half_];
    next_half_ = 1 - next_half_;
    // Its last copy was the one before the last of all.
    RETURN_IF_ERROR(half.copied.Synchronize());
    RETURN_IF_ERROR(half.memory.Grow(device_, (end - begin) * group_bytes));
    for (size_t group = begin; group < end; ++group) {
      pack(group, half.memory.data() + (group - begin) * group_bytes);
    }
    RETURN_IF_ERROR(Copy(target + begin * group_bytes, half, (end - begin) * group_bytes));
  }
  return absl::OkStatus();
}

absl::Status ExpertUploader::Copy(uint8_t* target, Half& half, size_t bytes) {
  RETURN_IF_ERROR(cuda::ToStatus(
      cudaMemcpyAsync(target, half.memory.data(), bytes, cudaMemcpyHostToDevice, stream_.get()),
      "cudaMemcpyAsync of weights"));
  return half.copied.Record(stream_);
}

}  // namespace expertmesh::experts
