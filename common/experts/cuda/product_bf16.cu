// Products of bf16 on tensor cores, weights as the instruction's rows and tokens as its columns.
// Both kernels give an element of the result the same instructions on the same operands, in
// ascending order of the inner dimension, whatever else there is: so its bits depend on its own row
// alone.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "common/cuda/device_code.h"
#include "common/cuda/launch.h"
#include "common/experts/cuda/device_types.h"
#include "common/experts/cuda/epilogue.h"
#include "common/experts/cuda/kernels.h"
#include "common/experts/cuda/product_parameters.h"

namespace expertmesh::experts {
namespace {

// Packed rows of one fragment: 8 of gate and 8 of up, or 16.
constexpr uint32_t kFragmentRows = 16;
constexpr uint32_t kHalf = 8;
// Tokens of one fragment.
constexpr uint32_t kFragmentTokens = 8;
// Elements of the inner dimension that one 16-byte load of a lane serves: two instructions. Lane t
// of a row's four loads elements [8 t, 8 t + 8) of them (expert_layout.h).
constexpr uint32_t kStepInner = 32;
// Bytes of a fragment of weights, and of the two of one step.
constexpr uint32_t kFragmentBytes = 512;
constexpr uint32_t kStepBytes = 2 * kFragmentBytes;
constexpr uint32_t kWarps = 4;
constexpr uint32_t kThreads = 32 * kWarps;

using Parameters = ProductParameters<__nv_bfloat16>;

// The two instructions of one step.
__device__ __forceinline__ void MultiplyStep(float (&sums)[4], const uint4& first,
                                             const uint4& second, const uint4& tokens) {
  const uint32_t a0[4] = {first.x, first.y, first.z, first.w};
  const uint32_t b0[2] = {tokens.x, tokens.y};
  cuda::MmaBf16(sums, a0, b0);
  const uint32_t a1[4] = {second.x, second.y, second.z, second.w};
  const uint32_t b1[2] = {tokens.z, tokens.w};
  cuda::MmaBf16(sums, a1, b1);
}

// A lane has two rows of the fragment, and of each two tokens.
template <bool kUp>
__device__ __forceinline__ void StoreSums(const Parameters& parameters, const DeviceExpert& expert,
                                          const TokenTile& tile, uint32_t fragment,
                                          uint32_t first_token, uint32_t lane,
                                          const float (&sums)[4]) {
  const uint32_t row = fragment * kFragmentRows + lane / 4;
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t token = first_token + lane % 4 * 2 + i;
    if (token >= tile.count) {
      return;
    }
    const size_t at = static_cast<size_t>(tile.begin + token) * parameters.output_stride;
    if (kUp) {
      StoreActivations<kHalf>(expert, row, sums[i], sums[i + 2],
                              static_cast<__nv_bfloat16*>(parameters.output) + at);
    } else {
      float* const out = static_cast<float*>(parameters.output) + at;
      out[row] = sums[i];
      out[row + kHalf] = sums[i + 2];
    }
  }
}

// Steps whose operands one lane of the narrow kernel has on their way at once.
constexpr uint32_t kTogether = 4;

// Operands of kTogether steps, in registers.
struct Operands {
  uint4 first[kTogether];
  uint4 second[kTogether];
  uint4 tokens[kTogether];

  // There are `left` steps from here on.
  __device__ __forceinline__ void Load(const uint8_t* weights, const __nv_bfloat16* input,
                                       uint32_t left) {
#pragma unroll
    for (uint32_t i = 0; i < kTogether; ++i) {
      if (i < left) {
        cuda::StreamingLoad16(&first[i], weights + i * kStepBytes);
        cuda::StreamingLoad16(&second[i], weights + i * kStepBytes + kFragmentBytes);
        tokens[i] = __ldg(reinterpret_cast<const uint4*>(input + i * kStepInner));
      }
    }
  }
  __device__ __forceinline__ void Multiply(float (&sums)[4], uint32_t left) const {
#pragma unroll
    for (uint32_t i = 0; i < kTogether; ++i) {
      if (i < left) {
        MultiplyStep(sums, first[i], second[i], tokens[i]);
      }
    }
  }
};

// For up to 8 rows of an expert: each weight goes once from memory to the registers of one warp,
// which has one fragment of rows and the whole inner dimension.
template <bool kUp>
__global__ void __launch_bounds__(kThreads) NarrowProductBf16(Parameters parameters) {
  const TokenTile tile = parameters.tiles[blockIdx.y];
  const DeviceExpert& expert = parameters.experts[tile.expert];
  const DeviceMatrix& matrix = kUp ? expert.up : expert.down;
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t fragment = blockIdx.x * kWarps + threadIdx.x / 32;
  if (fragment >= matrix.rows / kFragmentRows) {
    return;
  }
  const uint32_t steps = matrix.inner / kStepInner;
  const uint8_t* weights = static_cast<const uint8_t*>(matrix.values) +
                           static_cast<size_t>(fragment) * steps * kStepBytes + lane * 16;
  const uint32_t token = lane / 4 < tile.count ? lane / 4 : tile.count - 1;
  const __nv_bfloat16* input = parameters.InputRow(tile.begin + token) + lane % 4 * 8;

  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  Operands current, next;
  current.Load(weights, input, steps);
  for (uint32_t step = 0; step < steps; step += kTogether) {
    weights += kTogether * kStepBytes;
    input += kTogether * kStepInner;
    const uint32_t left = steps - step;
    if (left > kTogether) {
      next.Load(weights, input, left - kTogether);
    }
    current.Multiply(sums, left);
    current = next;
  }
  StoreSums<kUp>(parameters, expert, tile, fragment, 0, lane, sums);
}

// The wide kernels: a block has 128 rows of weights and up to 64 or 128 tokens, and takes both
// through shared memory, 64 of the inner dimension at a time, while the next two stages are on
// their way.
constexpr uint32_t kStages = 3;
constexpr uint32_t kStageSteps = 2;
constexpr uint32_t kStageInner = kStageSteps * kStepInner;
constexpr uint32_t kBlockFragments = 8;
constexpr uint32_t kStageWeightBytes = kBlockFragments * kStageSteps * kStepBytes;
// What one token has in one step; a step of all tokens lies together, so that reads of fragments
// meet no bank twice.
constexpr uint32_t kStepTokenBytes = kStepInner * 2;
// Tokens that a block copies at once, 16 bytes a thread.
constexpr uint32_t kCopiedTokens = kThreads / (kStageSteps * kStepTokenBytes / 16);
static_assert(kStageSteps * kStepBytes == 16 * kThreads, "one copy of a thread for each fragment");
static_assert(kPackedStep % kStageInner == 0);

// How a block that takes up to kTokens divides its work over its warps.
template <uint32_t kTokens>
struct WideShape {
  // Beside one another; the others have other rows of weights.
  static constexpr uint32_t kTokenWarps = kTokens > 64 ? 2 : 1;
  static constexpr uint32_t kRowWarps = kWarps / kTokenWarps;
  // What one warp has.
  static constexpr uint32_t kFragments = kBlockFragments / kRowWarps;
  static constexpr uint32_t kTokenFragments = kTokens / kFragmentTokens / kTokenWarps;
  static constexpr uint32_t kStageBytes =
      kStageWeightBytes + kStageSteps * kTokens * kStepTokenBytes;
  static constexpr uint32_t kSharedBytes = kStages * kStageBytes;
};

// What one thread copies of each stage.
template <uint32_t kTokens>
struct StageCopies {
  static constexpr uint32_t kCopies = kTokens / kCopiedTokens;
  const uint8_t* weights;  // The block's first fragment.
  size_t fragment_bytes;
  uint32_t fragments;  // Those of the block that the matrix has.
  uint32_t tokens;     // Those that there are, in whole fragments.
  const __nv_bfloat16* from[kCopies];

  __device__ __forceinline__ void Start(uint8_t* stage, uint32_t index) const {
    uint8_t* const to = stage + threadIdx.x * 16;
    const uint8_t* const at = weights + static_cast<size_t>(index) * kStageSteps * kStepBytes;
#pragma unroll
    for (uint32_t f = 0; f < kBlockFragments; ++f) {
      if (f < fragments) {
        cuda::CopyAsync16(to + f * kStageSteps * kStepBytes, at + f * fragment_bytes);
      }
    }
    const uint32_t piece = threadIdx.x % 8;
#pragma unroll
    for (uint32_t c = 0; c < kCopies; ++c) {
      const uint32_t token = threadIdx.x / 8 + c * kCopiedTokens;
      if (token < tokens) {
        cuda::CopyAsync16(stage + kStageWeightBytes +
                              (piece / 4 * kTokens + token) * kStepTokenBytes + piece % 4 * 16,
                          from[c] + static_cast<size_t>(index) * kStageInner);
      }
    }
  }
};

template <uint32_t kTokens>
using WideSums = float[WideShape<kTokens>::kFragments][WideShape<kTokens>::kTokenFragments][4];

// `first`, `first_token`: fragments of the block that are the warp's first; `tokens` of them there
// are in the block.
template <uint32_t kTokens>
__device__ __forceinline__ void MultiplyStage(const uint8_t* stage, uint32_t lane, uint32_t first,
                                              uint32_t first_token, uint32_t tokens,
                                              WideSums<kTokens>& sums) {
  using Shape = WideShape<kTokens>;
#pragma unroll
  for (uint32_t step = 0; step < kStageSteps; ++step) {
    uint4 a0[Shape::kFragments], a1[Shape::kFragments];
#pragma unroll
    for (uint32_t f = 0; f < Shape::kFragments; ++f) {
      const uint8_t* const from =
          stage + ((first + f) * kStageSteps + step) * kStepBytes + lane * 16;
      a0[f] = *reinterpret_cast<const uint4*>(from);
      a1[f] = *reinterpret_cast<const uint4*>(from + kFragmentBytes);
    }
    const uint8_t* const from =
        stage + kStageWeightBytes + step * kTokens * kStepTokenBytes + lane * 16;
#pragma unroll
    for (uint32_t n = 0; n < Shape::kTokenFragments; ++n) {
      if (first_token + n < tokens) {
        const uint4 x = *reinterpret_cast<const uint4*>(from + (first_token + n) * kFragmentTokens *
                                                                   kStepTokenBytes);
#pragma unroll
        for (uint32_t f = 0; f < Shape::kFragments; ++f) {
          MultiplyStep(sums[f][n], a0[f], a1[f], x);
        }
      }
    }
  }
}

template <uint32_t kTokens>
__device__ __forceinline__ StageCopies<kTokens> CopiesOf(const Parameters& parameters,
                                                         const TokenTile& tile,
                                                         const DeviceMatrix& matrix,
                                                         uint32_t first_fragment) {
  StageCopies<kTokens> copies;
  copies.fragment_bytes = static_cast<size_t>(matrix.inner / kStepInner) * kStepBytes;
  copies.weights = static_cast<const uint8_t*>(matrix.values) +
                   first_fragment * copies.fragment_bytes + threadIdx.x * 16;
  const uint32_t left = matrix.rows / kFragmentRows - first_fragment;
  copies.fragments = left < kBlockFragments ? left : kBlockFragments;
  copies.tokens = (tile.count + kFragmentTokens - 1) / kFragmentTokens * kFragmentTokens;
#pragma unroll
  for (uint32_t c = 0; c < StageCopies<kTokens>::kCopies; ++c) {
    const uint32_t wanted = threadIdx.x / 8 + c * kCopiedTokens;
    const uint32_t token = wanted < tile.count ? wanted : tile.count - 1;
    copies.from[c] = parameters.InputRow(tile.begin + token) + threadIdx.x % 8 * 8;
  }
  return copies;
}

template <bool kUp, uint32_t kTokens>
__global__ void __launch_bounds__(kThreads) WideProductBf16(Parameters parameters) {
  using Shape = WideShape<kTokens>;
  const TokenTile tile = parameters.tiles[blockIdx.y];
  const DeviceExpert& expert = parameters.experts[tile.expert];
  const DeviceMatrix& matrix = kUp ? expert.up : expert.down;
  const uint32_t block_fragment = blockIdx.x * kBlockFragments;
  if (block_fragment >= matrix.rows / kFragmentRows) {
    return;
  }
  uint8_t* const shared = cuda::DynamicShared<uint8_t>();
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t first = warp % Shape::kRowWarps * Shape::kFragments;
  const uint32_t first_token = warp / Shape::kRowWarps * Shape::kTokenFragments;
  const StageCopies<kTokens> copies = CopiesOf<kTokens>(parameters, tile, matrix, block_fragment);
  const uint32_t tokens = copies.tokens / kFragmentTokens;
  const bool has_work = first < copies.fragments && first_token < tokens;

  WideSums<kTokens> sums = {};
  const uint32_t stages = matrix.inner / kStageInner;
  for (uint32_t s = 0; s < kStages - 1; ++s) {
    if (s < stages) {
      copies.Start(shared + s * Shape::kStageBytes, s);
    }
    cuda::CommitCopies();
  }
  for (uint32_t s = 0; s < stages; ++s) {
    cuda::WaitCopies<kStages - 2>();
    // Everyone's copies are there, and everyone is done with the stage that is overwritten next.
    __syncthreads();
    const uint32_t next = s + kStages - 1;
    if (next < stages) {
      copies.Start(shared + next % kStages * Shape::kStageBytes, next);
    }
    cuda::CommitCopies();
    if (has_work) {
      MultiplyStage<kTokens>(shared + s % kStages * Shape::kStageBytes, lane, first, first_token,
                             tokens, sums);
    }
  }
  if (!has_work) {
    return;
  }
#pragma unroll
  for (uint32_t f = 0; f < Shape::kFragments; ++f) {
#pragma unroll
    for (uint32_t n = 0; n < Shape::kTokenFragments; ++n) {
      StoreSums<kUp>(parameters, expert, tile, block_fragment + first + f,
                     (first_token + n) * kFragmentTokens, lane, sums[f][n]);
    }
  }
}

// A block for every `rows` packed rows and every tile.
cuda::LaunchShape ShapeOf(const ProductArguments& arguments, uint32_t rows, size_t shared_bytes) {
  return {dim3((arguments.most_rows + rows - 1) / rows, arguments.tile_count), dim3(kThreads),
          shared_bytes};
}

template <uint32_t kTokens>
cudaError_t AllowShared() {
  for (const auto kernel : {&WideProductBf16<true, kTokens>, &WideProductBf16<false, kTokens>}) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   WideShape<kTokens>::kSharedBytes);
    if (error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

template <uint32_t kTokens>
cudaError_t LaunchWide(Stage stage, const ProductArguments& arguments, cudaStream_t stream) {
  return cuda::Launch(
      stage == Stage::kUp ? &WideProductBf16<true, kTokens> : &WideProductBf16<false, kTokens>,
      ShapeOf(arguments, kBlockFragments * kFragmentRows, WideShape<kTokens>::kSharedBytes), stream,
      Parameters(arguments));
}

}  // namespace

cudaError_t PrepareKernels() {
  const cudaError_t error = AllowShared<kWideRowsBf16>();
  return error != cudaSuccess ? error : AllowShared<kWidestRowsBf16>();
}

cudaError_t LaunchNarrowBf16(Stage stage, const ProductArguments& arguments, cudaStream_t stream) {
  return cuda::Launch(stage == Stage::kUp ? &NarrowProductBf16<true> : &NarrowProductBf16<false>,
                      ShapeOf(arguments, kWarps * kFragmentRows, 0), stream, Parameters(arguments));
}

cudaError_t LaunchWideBf16(Stage stage, const ProductArguments& arguments, cudaStream_t stream) {
  return arguments.most_tokens > kWideRowsBf16
             ? LaunchWide<kWidestRowsBf16>(stage, arguments, stream)
             : LaunchWide<kWideRowsBf16>(stage, arguments, stream);
}

}  // namespace expertmesh::experts
