// Marks functions that kernels of a GPU call as well.
#ifndef EXPERTMESH_COMMON_BASE_HOST_DEVICE_H_
#define EXPERTMESH_COMMON_BASE_HOST_DEVICE_H_

#if defined(__CUDACC__)
#define EXPERTMESH_HOST_DEVICE_INLINE __host__ __device__ __forceinline__
#else
#define EXPERTMESH_HOST_DEVICE_INLINE inline __attribute__((always_inline))
#endif

#endif  // EXPERTMESH_COMMON_BASE_HOST_DEVICE_H_
