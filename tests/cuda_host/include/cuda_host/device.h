// What a thread of a kernel can call: the implementation behind threadIdx, __syncthreads and the
// wrappers of common/cuda/device_code.h. Only code that runs inside a launched kernel may use it.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_HOST_DEVICE_H_
#define EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_HOST_DEVICE_H_

#include <cstdint>

#include "cuda_host/vector_types.h"

namespace expertmesh::cuda_host {

// Where the running thread is. One thread runs at a time in the whole process.
struct Place {
  uint3 thread;
  uint3 block;
  dim3 block_size;
  dim3 grid_size;
};
extern Place current_place;

// Where in the sources a call stands. Not std::source_location: clang 14 does not know it.
struct Site {
  const char* file;
  int line;
  static constexpr Site Current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

// All threads of the block meet, at the same call; a thread that has returned is missed.
void SyncThreads(const Site& site);
// The lanes of `mask` meet. The caller's own lane must be in it.
void SyncWarp(uint32_t mask, const Site& site);
// Bits of `value` of lane `source` (0 to 31) of the caller's warp.
uint32_t Shuffle(uint32_t mask, uint32_t value, uint32_t source, const Site& site);
// The caller's lane, 0 to 31.
uint32_t Lane();

// The launch's dynamic shared memory: as many bytes as it asked for, and not one more.
void* DynamicSharedBytes();
// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32: d += a x b. All 32 lanes meet.
void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
// ldmatrix.sync.aligned.m8n8.x4.shared.b16. All 32 lanes meet.
void LoadMatrix4(uint32_t (&r)[4], const void* shared_row);
// cp.async.cg.shared.global of 16 bytes. Takes place when it is waited for; until then its
// destination holds poison.
void CopyAsync16(void* shared, const void* global);
// Ends a group of the caller's copies.
void CommitCopies();
// Waits for all of the caller's groups but the last `pending`.
void WaitCopies(int pending);

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_HOST_DEVICE_H_
