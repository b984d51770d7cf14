// An expert in device memory. Private to the room.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_CUDA_EXPERT_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_CUDA_EXPERT_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/cuda/device_memory.h"
#include "common/experts/backend.h"
#include "common/experts/cuda/device_state.h"
#include "common/experts/cuda/device_types.h"
#include "common/experts/cuda/expert_layout.h"

namespace expertmesh::experts {

// Where the parts of an expert lie in its memory: both matrices, then the biases it has.
struct ExpertParts {
  ExpertParts(const PackedShape& shape, const ExpertWeights& weights);

  size_t down = 0;
  size_t up_bias = 0;
  size_t down_bias = 0;
  size_t bytes = 0;  // All of it.
};

class CudaExpert final : public PackedExpert {
 public:
  // Memory for an expert of `shape`, still without its values. `options` are the expert's.
  //   RESOURCE_EXHAUSTED  above the limit of `state`, or no memory.
  static absl::StatusOr<std::shared_ptr<CudaExpert>> Allocate(std::shared_ptr<DeviceState> state,
                                                              const PackedShape& shape,
                                                              const ExpertOptions& options,
                                                              const ExpertWeights& weights);
  ~CudaExpert() override;

  size_t bytes() const override { return memory_.size(); }
  uint8_t* data() const { return memory_.as<uint8_t>(); }
  const PackedShape& shape() const { return shape_; }
  // As kernels take it.
  const DeviceExpert& on_device() const { return on_device_; }
  const DeviceState* state() const { return state_.get(); }

 private:
  CudaExpert(std::shared_ptr<DeviceState> state, const PackedShape& shape,
             cuda::DeviceMemory memory)
      : state_(std::move(state)), shape_(shape), memory_(std::move(memory)) {}

  const std::shared_ptr<DeviceState> state_;
  const PackedShape shape_;
  cuda::DeviceMemory memory_;
  DeviceExpert on_device_ = {};
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_CUDA_EXPERT_H_
