// The instructions that kernels use beyond CUDA C++ itself, each as a function. Under nvcc they are
// PTX (sm_80 and up); tests compile them against tests/cuda_host, which computes the same.
//
// What has "all lanes" in its comment is a meeting of the whole warp: no lane may be missing.
#ifndef EXPERTMESH_COMMON_CUDA_DEVICE_CODE_H_
#define EXPERTMESH_COMMON_CUDA_DEVICE_CODE_H_

#include <cuda_runtime.h>

#include <cstdint>

#ifdef EXPERTMESH_CUDA_HOST
#include "cuda_host/device.h"
#endif

namespace expertmesh::cuda {

// The block's dynamic shared memory, 16-byte aligned.
template <typename T>
__device__ __forceinline__ T* DynamicShared() {
#if defined(__CUDA_ARCH__)
  extern __shared__ uint4 expertmesh_dynamic_shared[];
  return reinterpret_cast<T*>(expertmesh_dynamic_shared);
#elif defined(EXPERTMESH_CUDA_HOST)
  return static_cast<T*>(cuda_host::DynamicSharedBytes());
#else
  return nullptr;
#endif
}

// d += a x b, 16 x 16 by 16 x 8 bf16 numbers into float32; all lanes. Lane l holds, with g = l / 4
// and t = l % 4, two numbers to a register, the lower column in the lower half:
//   a  rows g, g + 8, g, g + 8; columns 2t and 2t + 1, the last two registers 8 columns further on
//   b  rows 2t and 2t + 1, then 8 rows further on; column g
//   d  row g, columns 2t and 2t + 1, then row g + 8
__device__ __forceinline__ void MmaBf16(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(EXPERTMESH_CUDA_HOST)
  cuda_host::MmaBf16(d, a, b);
#endif
}

// Four 8 x 8 matrices of 16-bit numbers; all lanes. Lane l gives the address, 16-byte aligned, of
// row l % 8 of matrix l / 8, and gets in r[i] the numbers 2 (l % 4) and 2 (l % 4) + 1 of row l / 4
// of matrix i.
__device__ __forceinline__ void LoadMatrix4(uint32_t (&r)[4], const void* shared_row) {
#if defined(__CUDA_ARCH__)
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
#elif defined(EXPERTMESH_CUDA_HOST)
  cuda_host::LoadMatrix4(r, shared_row);
#endif
}

// Copies 16 bytes from global to shared memory, past L1. Both ends are 16-byte aligned. The calling
// thread sees them after WaitCopies for their group, the others of the block after a barrier then.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global) {
#if defined(__CUDA_ARCH__)
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
#elif defined(EXPERTMESH_CUDA_HOST)
  cuda_host::CopyAsync16(shared, global);
#endif
}

// The thread's copies since the last call become a group.
__device__ __forceinline__ void CommitCopies() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#elif defined(EXPERTMESH_CUDA_HOST)
  cuda_host::CommitCopies();
#endif
}

// Waits until no more than the thread's last kPending groups are under way.
template <int kPending>
__device__ __forceinline__ void WaitCopies() {
  static_assert(kPending >= 0);
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#elif defined(EXPERTMESH_CUDA_HOST)
  cuda_host::WaitCopies(kPending);
#endif
}

// Reads 16 aligned bytes that no one writes during the kernel and that are read once: not through
// L1.
__device__ __forceinline__ void StreamingLoad16(uint4* to, const void* global) {
#if defined(__CUDA_ARCH__)
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(to->x), "=r"(to->y), "=r"(to->z), "=r"(to->w)
               : "l"(global));
#elif defined(EXPERTMESH_CUDA_HOST)
  *to = *static_cast<const uint4*>(global);
#endif
}

}  // namespace expertmesh::cuda

#endif  // EXPERTMESH_COMMON_CUDA_DEVICE_CODE_H_
