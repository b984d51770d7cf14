// What lies around the products: gathering rows, activations, and the sum over a row's assignments.
// With the functions and the order of operations of the CPU backend, compiled without contraction.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "common/cuda/launch.h"
#include "common/experts/cuda/device_types.h"
#include "common/experts/cuda/epilogue.h"
#include "common/experts/cuda/kernels.h"

namespace expertmesh::experts {
namespace {

constexpr uint32_t kThreads = 256;

__device__ __forceinline__ float ToFloat(float value) { return value; }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 value) { return __bfloat162float(value); }

struct GatherParameters {
  const void* input;
  const uint32_t* row_of;
  const float* scale;
  void* output;
  uint32_t columns;
  uint32_t stride;

  template <typename F>
  void ForEachPointer(F f) const {
    f(input);
    f(row_of);
    f(scale);
    f(output);
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads) Gather(GatherParameters parameters) {
  const uint32_t row = blockIdx.x;
  const uint32_t column = blockIdx.y * kThreads + threadIdx.x;
  if (column >= parameters.stride) {
    return;
  }
  const T value = static_cast<const T*>(
      parameters.input)[static_cast<size_t>(parameters.row_of[row]) * parameters.stride + column];
  T* const out =
      static_cast<T*>(parameters.output) + static_cast<size_t>(row) * parameters.stride + column;
  if (parameters.scale != nullptr && column < parameters.columns) {
    Store(__fmul_rn(parameters.scale[row], ToFloat(value)), out);
  } else {
    *out = value;
  }
}

struct ActivateParameters {
  const DeviceExpert* experts;
  const TokenTile* tiles;
  const uint64_t* product_begin;
  const void* products;
  void* activations;
  uint32_t stride;

  template <typename F>
  void ForEachPointer(F f) const {
    f(experts);
    f(tiles);
    f(product_begin);
    f(products);
    f(activations);
  }
};

// Packed rows of a gate and its up lie kHalf apart.
template <typename T>
constexpr uint32_t kHalfOf = sizeof(T) == 2 ? 8 : 32;

template <typename T>
__global__ void __launch_bounds__(kThreads) Activate(ActivateParameters parameters) {
  constexpr uint32_t kHalf = kHalfOf<T>;
  const TokenTile tile = parameters.tiles[blockIdx.x];
  const DeviceExpert& expert = parameters.experts[tile.expert];
  const uint32_t pair = blockIdx.y * kThreads + threadIdx.x;
  const uint32_t row = pair / kHalf * (2 * kHalf) + pair % kHalf;
  if (row >= expert.up.rows) {
    return;
  }
  const T* const products =
      static_cast<const T*>(parameters.products) + parameters.product_begin[blockIdx.x];
  for (uint32_t token = 0; token < tile.count; ++token) {
    const T* const from = products + static_cast<size_t>(token) * expert.up.rows;
    StoreActivations<kHalf>(expert, row, ToFloat(from[row]), ToFloat(from[row + kHalf]),
                            static_cast<T*>(parameters.activations) +
                                static_cast<size_t>(tile.begin + token) * parameters.stride);
  }
}

struct CombineParameters {
  const DeviceExpert* experts;
  const uint32_t* row_begin;
  const Term* terms;
  const void* outputs;
  float* sums;
  uint32_t output_stride;
  uint32_t columns;

  template <typename F>
  void ForEachPointer(F f) const {
    f(experts);
    f(row_begin);
    f(terms);
    f(outputs);
    f(sums);
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads) Combine(CombineParameters parameters) {
  const uint32_t row = blockIdx.x;
  const uint32_t column = blockIdx.y * kThreads + threadIdx.x;
  if (column >= parameters.columns) {
    return;
  }
  float sum = 0.0f;
  const uint32_t end = parameters.row_begin[row + 1];
  for (uint32_t t = parameters.row_begin[row]; t < end; ++t) {
    const Term term = parameters.terms[t];
    const size_t at = static_cast<size_t>(term.position) * parameters.output_stride + column;
    float value = ToFloat(static_cast<const T*>(parameters.outputs)[at]);
    const float* const bias = parameters.experts[term.expert].down.bias;
    if (bias != nullptr) {
      value = __fadd_rn(value, bias[column]);
    }
    sum = __fadd_rn(sum, __fmul_rn(term.weight, value));
  }
  parameters.sums[static_cast<size_t>(row) * parameters.columns + column] = sum;
}

// A thread for each of `columns`, in each of `rows`, of which a grid takes more in x.
cuda::LaunchShape ShapeOf(uint32_t columns, uint32_t rows) {
  return {dim3(rows, (columns + kThreads - 1) / kThreads), dim3(kThreads)};
}

template <typename T>
cudaError_t LaunchGather(const GatherArguments& arguments, cudaStream_t stream) {
  const GatherParameters parameters = {arguments.input,  arguments.row_of,  arguments.scale,
                                       arguments.output, arguments.columns, arguments.stride};
  return cuda::Launch(&Gather<T>, ShapeOf(arguments.stride, arguments.rows), stream, parameters);
}

template <typename T>
cudaError_t LaunchActivate(const ActivateArguments& arguments, cudaStream_t stream) {
  const ActivateParameters parameters = {arguments.experts,       arguments.tiles,
                                         arguments.product_begin, arguments.products,
                                         arguments.activations,   arguments.stride};
  return cuda::Launch(&Activate<T>, ShapeOf(arguments.most_rows / 2, arguments.tile_count), stream,
                      parameters);
}

template <typename T>
cudaError_t LaunchCombine(const CombineArguments& arguments, cudaStream_t stream) {
  const CombineParameters parameters = {
      arguments.experts, arguments.row_begin,     arguments.terms,  arguments.outputs,
      arguments.sums,    arguments.output_stride, arguments.columns};
  return cuda::Launch(&Combine<T>, ShapeOf(arguments.columns, arguments.rows), stream, parameters);
}

}  // namespace

cudaError_t LaunchGatherBf16(const GatherArguments& arguments, cudaStream_t stream) {
  return LaunchGather<__nv_bfloat16>(arguments, stream);
}

cudaError_t LaunchGatherF32(const GatherArguments& arguments, cudaStream_t stream) {
  return LaunchGather<float>(arguments, stream);
}

cudaError_t LaunchActivateBf16(const ActivateArguments& arguments, cudaStream_t stream) {
  return LaunchActivate<__nv_bfloat16>(arguments, stream);
}

cudaError_t LaunchActivateF32(const ActivateArguments& arguments, cudaStream_t stream) {
  return LaunchActivate<float>(arguments, stream);
}

cudaError_t LaunchCombineBf16(const CombineArguments& arguments, cudaStream_t stream) {
  return LaunchCombine<__nv_bfloat16>(arguments, stream);
}

cudaError_t LaunchCombineF32(const CombineArguments& arguments, cudaStream_t stream) {
  return LaunchCombine<float>(arguments, stream);
}

}  // namespace expertmesh::experts
