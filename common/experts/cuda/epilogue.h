// What kernels do with finished sums of products. Private to the room's kernels.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_EPILOGUE_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_EPILOGUE_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "common/experts/activation_functions.h"
#include "common/experts/cuda/device_types.h"

namespace expertmesh::experts {

__device__ __forceinline__ void Store(float value, float* out) { *out = value; }
__device__ __forceinline__ void Store(float value, __nv_bfloat16* out) {
  *out = __float2bfloat16_rn(value);
}

__device__ __forceinline__ bool IsGated(DeviceActivation activation) {
  return activation >= DeviceActivation::kGatedSilu;
}

__device__ __forceinline__ float GatedActivation(const DeviceExpert& expert, float gate, float up) {
  if (expert.activation == DeviceActivation::kGatedSilu) {
    return Silu()(gate, up);
  }
  if (expert.activation == DeviceActivation::kGatedRelu) {
    return Relu()(gate, up);
  }
  return ClampedSwiglu{expert.swiglu_limit, expert.swiglu_alpha}(gate, up);
}

__device__ __forceinline__ float PlainActivation(const DeviceExpert& expert, float up) {
  return expert.activation == DeviceActivation::kSilu ? Silu()(up) : Relu()(up);
}

// Two rows of the first product, `kHalf` packed rows apart: `row` is the first, in an even group of
// kHalf. A gate and its up, or two of up alone.
template <uint32_t kHalf, typename T>
__device__ __forceinline__ void StoreActivations(const DeviceExpert& expert, uint32_t row,
                                                 float first, float second, T* out) {
  const float* const bias = expert.up.bias;
  if (bias != nullptr) {
    first = __fadd_rn(first, bias[row]);
    second = __fadd_rn(second, bias[row + kHalf]);
  }
  if (IsGated(expert.activation)) {
    Store(GatedActivation(expert, first, second), out + row / (2 * kHalf) * kHalf + row % kHalf);
  } else {
    Store(PlainActivation(expert, first), out + row);
    Store(PlainActivation(expert, second), out + row + kHalf);
  }
}

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_EPILOGUE_H_
