// Products of float32: one chain of fused multiply-adds for each element of the result, in
// ascending order of the inner dimension, whatever else there is.
#include <cuda_runtime.h>

#include <cstdint>

#include "common/cuda/launch.h"
#include "common/experts/cuda/device_types.h"
#include "common/experts/cuda/epilogue.h"
#include "common/experts/cuda/kernels.h"
#include "common/experts/cuda/product_parameters.h"

namespace expertmesh::experts {
namespace {

// Packed rows of one warp, two of each lane: 32 of gate and 32 of up, or 64.
constexpr uint32_t kGroupRows = 64;
constexpr uint32_t kHalf = 32;
constexpr uint32_t kWarps = 4;
constexpr uint32_t kThreads = 32 * kWarps;
// Elements of the inner dimension that one load of a lane brings.
constexpr uint32_t kLoadInner = 4;
// Inner dimension of the tokens that are in shared memory at once.
constexpr uint32_t kStageInner = 64;
constexpr uint32_t kStageLoads = kStageInner / kLoadInner;
static_assert(kGroupRows == kPackedStep && kPackedStep % kStageInner == 0);

using Parameters = ProductParameters<float>;

__device__ __forceinline__ float4 Load4(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}

__device__ __forceinline__ float MultiplyAdd4(const float4& a, const float4& b, float sum) {
  sum = __fmaf_rn(a.x, b.x, sum);
  sum = __fmaf_rn(a.y, b.y, sum);
  sum = __fmaf_rn(a.z, b.z, sum);
  return __fmaf_rn(a.w, b.w, sum);
}

template <uint32_t kTokens>
__device__ __forceinline__ void LoadStage(const Parameters& parameters, const TokenTile& tile,
                                          uint32_t inner, float4 (&tokens)[kTokens][kStageLoads]) {
  for (uint32_t i = threadIdx.x; i < kTokens * kStageLoads; i += kThreads) {
    const uint32_t wanted = i / kStageLoads;
    const uint32_t token = wanted < tile.count ? wanted : tile.count - 1;
    const float* const from = parameters.InputRow(tile.begin + token) + inner;
    tokens[wanted][i % kStageLoads] = Load4(from + i % kStageLoads * kLoadInner);
  }
}

// A warp has one group of rows, its lanes rows `lane` and `lane + 32` of it for all tokens.
template <bool kUp, uint32_t kTokens>
__global__ void __launch_bounds__(kThreads) ProductF32(Parameters parameters) {
  __shared__ float4 tokens[kTokens][kStageLoads];
  const TokenTile tile = parameters.tiles[blockIdx.y];
  const DeviceExpert& expert = parameters.experts[tile.expert];
  const DeviceMatrix& matrix = kUp ? expert.up : expert.down;
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t group = blockIdx.x * kWarps + threadIdx.x / 32;
  const bool has_rows = group < matrix.rows / kGroupRows;
  const float* weights = static_cast<const float*>(matrix.values) +
                         static_cast<size_t>(group) * kGroupRows * matrix.inner + lane * kLoadInner;
  float sums[2][kTokens] = {};
  for (uint32_t inner = 0; inner < matrix.inner; inner += kStageInner) {
    __syncthreads();  // Everyone is done with the stage before.
    LoadStage<kTokens>(parameters, tile, inner, tokens);
    __syncthreads();
    if (!has_rows) {
      continue;
    }
#pragma unroll 2
    for (uint32_t k = 0; k < kStageLoads; ++k) {
      const float4 first = Load4(weights);
      const float4 second = Load4(weights + kHalf * kLoadInner);
      weights += kGroupRows * kLoadInner;
#pragma unroll
      for (uint32_t n = 0; n < kTokens; ++n) {
        const float4 x = tokens[n][k];
        sums[0][n] = MultiplyAdd4(first, x, sums[0][n]);
        sums[1][n] = MultiplyAdd4(second, x, sums[1][n]);
      }
    }
  }
  const uint32_t row = group * kGroupRows + lane;
#pragma unroll
  for (uint32_t n = 0; n < kTokens; ++n) {
    if (has_rows && n < tile.count) {
      float* const out = static_cast<float*>(parameters.output) +
                         static_cast<size_t>(tile.begin + n) * parameters.output_stride;
      if (kUp) {
        StoreActivations<kHalf>(expert, row, sums[0][n], sums[1][n], out);
      } else {
        out[row] = sums[0][n];
        out[row + kHalf] = sums[1][n];
      }
    }
  }
}

template <uint32_t kTokens>
cudaError_t LaunchF32(Stage stage, const ProductArguments& arguments, cudaStream_t stream) {
  constexpr uint32_t kBlockRows = kWarps * kGroupRows;
  const cuda::LaunchShape shape = {
      dim3((arguments.most_rows + kBlockRows - 1) / kBlockRows, arguments.tile_count),
      dim3(kThreads)};
  return cuda::Launch(
      stage == Stage::kUp ? &ProductF32<true, kTokens> : &ProductF32<false, kTokens>, shape, stream,
      Parameters(arguments));
}

}  // namespace

cudaError_t LaunchNarrowF32(Stage stage, const ProductArguments& arguments, cudaStream_t stream) {
  return LaunchF32<kNarrowRows>(stage, arguments, stream);
}

cudaError_t LaunchWideF32(Stage stage, const ProductArguments& arguments, cudaStream_t stream) {
  return LaunchF32<kWideRowsF32>(stage, arguments, stream);
}

}  // namespace expertmesh::experts
