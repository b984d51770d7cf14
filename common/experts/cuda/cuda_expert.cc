#include "common/experts/cuda/cuda_expert.h"

#include <utility>

#include "common/base/status_macros.h"

namespace expertmesh::experts {
namespace {

// What every part of an expert begins at.
constexpr size_t kAlignment = 256;

size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

DeviceActivation ActivationOf(const ExpertOptions& options) {
  if (options.activation == Activation::kClampedSwiglu) {
    return DeviceActivation::kGatedClampedSwiglu;
  }
  if (options.activation == Activation::kSilu) {
    return options.gated ? DeviceActivation::kGatedSilu : DeviceActivation::kSilu;
  }
  return options.gated ? DeviceActivation::kGatedRelu : DeviceActivation::kRelu;
}

}  // namespace

ExpertParts::ExpertParts(const PackedShape& shape, const ExpertWeights& weights) {
  down = Aligned(shape.up_bytes());
  up_bias = down + Aligned(shape.down_bytes());
  down_bias = up_bias + (weights.up_bias.empty() ? 0 : Aligned(shape.up_rows() * sizeof(float)));
  bytes = down_bias + (weights.down_bias.empty() ? 0 : Aligned(shape.down_rows() * sizeof(float)));
}

absl::StatusOr<std::shared_ptr<CudaExpert>> CudaExpert::Allocate(std::shared_ptr<DeviceState> state,
                                                                 const PackedShape& shape,
                                                                 const ExpertOptions& options,
                                                                 const ExpertWeights& weights) {
  const ExpertParts parts(shape, weights);
  ASSIGN_OR_RETURN(cuda::DeviceMemory memory, state->TakeMemory(parts.bytes));
  std::shared_ptr<CudaExpert> expert(new CudaExpert(std::move(state), shape, std::move(memory)));
  uint8_t* const data = expert->data();
  const auto bias = [data](const MatrixView& view, size_t at) {
    return view.empty() ? nullptr : reinterpret_cast<const float*>(data + at);
  };
  DeviceExpert& on_device = expert->on_device_;
  on_device.up = {data, bias(weights.up_bias, parts.up_bias),
                  static_cast<uint32_t>(shape.up_rows()), static_cast<uint32_t>(shape.up_inner())};
  on_device.down = {data + parts.down, bias(weights.down_bias, parts.down_bias),
                    static_cast<uint32_t>(shape.down_rows()),
                    static_cast<uint32_t>(shape.down_inner())};
  on_device.activation = ActivationOf(options);
  on_device.swiglu_limit = options.swiglu_limit;
  on_device.swiglu_alpha = options.swiglu_alpha;
  return expert;
}

CudaExpert::~CudaExpert() { state_->GiveBack(std::move(memory_)); }

}  // namespace expertmesh::experts
