#include "common/cuda/device_code.h"
#include "tests/cuda_host/sample_kernels.h"

namespace expertmesh::cuda_host {

namespace {

__device__ int GridIndex() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }

}  // namespace

__global__ void Scale(float* out, const float* in, int n, float factor) {
  const int i = GridIndex();
  if (i < n) {
    out[i] = __fmul_rn(factor, in[i]);
  }
}

__global__ void ScaleUnguarded(float* out, const float* in, float factor) {
  const int i = GridIndex();
  out[i] = __fmul_rn(factor, in[i]);
}

template <Lapse kLapse>
__global__ void ReverseBlocks(float* out, const float* in) {
  __shared__ float values[64];
  values[threadIdx.x] = in[GridIndex()];
  if (kLapse == Lapse::kNone || (kLapse == Lapse::kBarrierOfSome && threadIdx.x < 32)) {
    __syncthreads();
  }
  out[GridIndex()] = values[blockDim.x - 1 - threadIdx.x];
}
template __global__ void ReverseBlocks<Lapse::kNone>(float*, const float*);
template __global__ void ReverseBlocks<Lapse::kBarrier>(float*, const float*);
template __global__ void ReverseBlocks<Lapse::kBarrierOfSome>(float*, const float*);

template <Lapse kLapse>
__global__ void AddNext(float* out, const float* in) {
  auto* shared = cuda::DynamicShared<float4>();
  cuda::CopyAsync16(&shared[threadIdx.x], in + 4 * GridIndex());
  if (kLapse != Lapse::kCommit) {
    cuda::CommitCopies();
  }
  if (kLapse != Lapse::kWait) {
    cuda::WaitCopies<0>();
  }
  if (kLapse != Lapse::kBarrier) {
    __syncthreads();
  }
  const float4 own = shared[threadIdx.x];
  const float4 next = shared[(threadIdx.x + 1) % blockDim.x];
  reinterpret_cast<float4*>(out)[GridIndex()] =
      make_float4(own.x + next.x, own.y + next.y, own.z + next.z, own.w + next.w);
}
template __global__ void AddNext<Lapse::kNone>(float*, const float*);
template __global__ void AddNext<Lapse::kBarrier>(float*, const float*);
template __global__ void AddNext<Lapse::kWait>(float*, const float*);
template __global__ void AddNext<Lapse::kCommit>(float*, const float*);

template <Lapse kLapse>
__global__ void SumTiles(float* out, const float* in) {
  constexpr int kTiles = 6;
  auto* stages = cuda::DynamicShared<float4>();
  const auto* from = reinterpret_cast<const float4*>(in) + blockIdx.x * kTiles * 32;
  const int i = static_cast<int>(threadIdx.x);
  for (int tile = 0; tile < 2; ++tile) {
    cuda::CopyAsync16(&stages[tile * 32 + i], &from[tile * 32 + i]);
    cuda::CommitCopies();
  }
  float sum = 0.0f;
  for (int tile = 0; tile < kTiles; ++tile) {
    cuda::WaitCopies<kLapse == Lapse::kWait ? 2 : 1>();
    __syncthreads();
    const float4 values = stages[tile % 2 * 32 + 31 - i];
    sum += values.x + values.y + values.z + values.w;
    if (kLapse != Lapse::kBarrier) {
      __syncthreads();
    }
    if (tile + 2 < kTiles) {
      cuda::CopyAsync16(&stages[tile % 2 * 32 + i], &from[(tile + 2) * 32 + i]);
    }
    cuda::CommitCopies();  // One group for each tile, empty ones at the end.
  }
  out[GridIndex()] = sum;
}
template __global__ void SumTiles<Lapse::kNone>(float*, const float*);
template __global__ void SumTiles<Lapse::kWait>(float*, const float*);
template __global__ void SumTiles<Lapse::kBarrier>(float*, const float*);

__global__ void SumWarps(float* out, const float* in, uint32_t mask) {
  float sum = in[GridIndex()];
  for (int other = 16; other > 0; other /= 2) {
    sum = __fadd_rn(sum, __shfl_xor_sync(mask, sum, other));
  }
  if (threadIdx.x % warpSize == 0) {
    out[GridIndex() / warpSize] = sum;
  }
}

__global__ void ShiftWarps(float* out, const float* in, unsigned int delta) {
  out[GridIndex()] = __shfl_down_sync(0xffffffffu, in[GridIndex()], delta);
}

__global__ void MultiplyTile(float* out, const __nv_bfloat16* a, const __nv_bfloat16* b) {
  auto* tile = cuda::DynamicShared<uint4>();  // 16 rows of a, 8 of b, two uint4 each.
  const int lane = static_cast<int>(threadIdx.x);
  tile[lane] = __ldg(reinterpret_cast<const uint4*>(a) + lane);
  if (lane < 16) {
    cuda::StreamingLoad16(&tile[32 + lane], reinterpret_cast<const uint4*>(b) + lane);
  }
  __syncwarp();
  // Matrices of a: upper left, lower left, upper right, lower right; of b: left, right, and again.
  uint32_t from_a[4];
  cuda::LoadMatrix4(from_a, &tile[2 * (lane % 16) + lane / 16]);
  uint32_t from_b[4];
  cuda::LoadMatrix4(from_b, &tile[32 + 2 * (lane % 8) + lane / 8 % 2]);
  const uint32_t fragment_b[2] = {from_b[0], from_b[1]};
  const int row = lane / 4;
  const int column = lane % 4 * 2;
  float sums[4];
  for (int i = 0; i < 4; ++i) {
    sums[i] = out[(row + i / 2 * 8) * 8 + column + i % 2];
  }
  cuda::MmaBf16(sums, from_a, fragment_b);
  for (int i = 0; i < 4; ++i) {
    out[(row + i / 2 * 8) * 8 + column + i % 2] = sums[i];
  }
}

__global__ void WriteBlocks(uint4* out) {
  const unsigned int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
      make_uint4(block, thread, blockIdx.y, threadIdx.z);
}

__global__ void ReadFresh(float* out, const float* memory) {
  __shared__ float values[4];
  out[0] = values[threadIdx.x];
  out[1] = cuda::DynamicShared<float>()[threadIdx.x];
  out[2] = memory[0] != memory[0] ? 1.0f : 0.0f;
  values[threadIdx.x] = 1.0f;
  cuda::DynamicShared<float>()[threadIdx.x] = 1.0f;
}

__global__ void WriteFirst(int* out, int same) {
  out[0] = same != 0 ? same : static_cast<int>(blockIdx.x);
}

__global__ void TakeNext(int* values, int blocks) {
  const int block = static_cast<int>(blockIdx.x);
  if (block + 1 < blocks) {
    values[block] = values[block + 1] + 1;
  }
}

__global__ void WriteAt(char* memory, int64_t offset, char value) { memory[offset] = value; }

__global__ void WriteSharedAt(int64_t offset, char value) {
  cuda::DynamicShared<char>()[offset] = value;
}

__global__ void Follow(float* out, const float* const* pointers) { out[0] = pointers[0][0]; }

}  // namespace expertmesh::cuda_host
