// Small kernels, right and wrong ones, for the tests of the harness.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_SAMPLE_KERNELS_H_
#define EXPERTMESH_TESTS_CUDA_HOST_SAMPLE_KERNELS_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace expertmesh::cuda_host {

// What a kernel forgets.
enum class Lapse {
  kNone,
  kBarrier,
  kBarrierOfSome,  // Only some threads of the block come to it.
  kWait,           // For its asynchronous copies.
  kCommit,
};

// out[i] = factor * in[i] for i < n.
__global__ void Scale(float* out, const float* in, int n, float factor);
// The same without looking at n.
__global__ void ScaleUnguarded(float* out, const float* in, float factor);

// Reverses each block's numbers through a static shared array of 64.
template <Lapse kLapse>
__global__ void ReverseBlocks(float* out, const float* in);

// Copies blocks of 4 numbers per thread through dynamic shared memory, asynchronously, and adds
// what the next thread copied.
template <Lapse kLapse>
__global__ void AddNext(float* out, const float* in);

// out[b * 32 + i] = the sum over 6 tiles of 32 float4 of the numbers of lane 31 - i, for one warp
// in each block; two tiles are under way at a time, in two stages of dynamic shared memory. kWait:
// waits for one group too few.
template <Lapse kLapse>
__global__ void SumTiles(float* out, const float* in);

// out[w] = the sum of the 32 numbers of warp w, by __shfl_xor_sync with `mask`.
__global__ void SumWarps(float* out, const float* in, uint32_t mask);
// out[i] = in[i + delta] within a warp, by __shfl_down_sync; the lane itself at its end.
__global__ void ShiftWarps(float* out, const float* in, unsigned int delta);

// out [16, 8] += a [16, 16] x b [8, 16]^T, one warp; through dynamic shared memory.
__global__ void MultiplyTile(float* out, const __nv_bfloat16* a, const __nv_bfloat16* b);

// Where the thread is: out[its number in the grid] = {block, thread}.
__global__ void WriteBlocks(uint4* out);

// out[0] = what an element of static and of dynamic shared memory holds at first; out[2] = 1 if the
// first element of `memory` is a NaN.
__global__ void ReadFresh(float* out, const float* memory);

// Every block writes out[0], by its index or all the same.
__global__ void WriteFirst(int* out, int same);
// values[b] = values[b + 1] + 1: what it makes depends on the order of blocks.
__global__ void TakeNext(int* values, int blocks);

// Writes `value` at `offset` bytes from `memory`, and from the dynamic shared memory.
__global__ void WriteAt(char* memory, int64_t offset, char value);
__global__ void WriteSharedAt(int64_t offset, char value);

// Reads through a pointer that is itself in device memory.
__global__ void Follow(float* out, const float* const* pointers);

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_SAMPLE_KERNELS_H_
