// Stand-in for the toolkit's header of this name: the runtime's calls, and what kernels use.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_RUNTIME_H_
#define EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_RUNTIME_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda_host/device.h"
#include "cuda_runtime_api.h"

inline constexpr const uint3& threadIdx = ::expertmesh::cuda_host::current_place.thread;
inline constexpr const uint3& blockIdx = ::expertmesh::cuda_host::current_place.block;
inline constexpr const dim3& blockDim = ::expertmesh::cuda_host::current_place.block_size;
inline constexpr const dim3& gridDim = ::expertmesh::cuda_host::current_place.grid_size;
inline constexpr int warpSize = 32;

inline void __syncthreads(
    const ::expertmesh::cuda_host::Site& site = ::expertmesh::cuda_host::Site::Current()) {
  ::expertmesh::cuda_host::SyncThreads(site);
}
inline void __syncwarp(
    unsigned int mask = 0xffffffffu,
    const ::expertmesh::cuda_host::Site& site = ::expertmesh::cuda_host::Site::Current()) {
  ::expertmesh::cuda_host::SyncWarp(mask, site);
}

// As in the toolkit: lanes are divided into parts of `width`, a power of two; a source outside of
// the caller's part is the caller itself (for __shfl_sync: is taken modulo the width).
template <typename T>
T __shfl_sync(
    unsigned int mask, T value, int source, int width = 32,
    const ::expertmesh::cuda_host::Site& site = ::expertmesh::cuda_host::Site::Current()) {
  static_assert(sizeof(T) == 4 && std::is_trivially_copyable_v<T>);
  const uint32_t lane = ::expertmesh::cuda_host::Lane();
  const uint32_t part = lane & ~static_cast<uint32_t>(width - 1);
  return std::bit_cast<T>(
      ::expertmesh::cuda_host::Shuffle(mask, std::bit_cast<uint32_t>(value),
                                       part + (static_cast<uint32_t>(source) & (width - 1)), site));
}
template <typename T>
T __shfl_xor_sync(
    unsigned int mask, T value, int lane_mask, int width = 32,
    const ::expertmesh::cuda_host::Site& site = ::expertmesh::cuda_host::Site::Current()) {
  static_assert(sizeof(T) == 4 && std::is_trivially_copyable_v<T>);
  const uint32_t lane = ::expertmesh::cuda_host::Lane();
  const uint32_t last = lane | static_cast<uint32_t>(width - 1);
  const uint32_t source = lane ^ static_cast<uint32_t>(lane_mask);
  return std::bit_cast<T>(::expertmesh::cuda_host::Shuffle(mask, std::bit_cast<uint32_t>(value),
                                                           source > last ? lane : source, site));
}
template <typename T>
T __shfl_down_sync(
    unsigned int mask, T value, unsigned int delta, int width = 32,
    const ::expertmesh::cuda_host::Site& site = ::expertmesh::cuda_host::Site::Current()) {
  static_assert(sizeof(T) == 4 && std::is_trivially_copyable_v<T>);
  const uint32_t lane = ::expertmesh::cuda_host::Lane();
  const uint32_t last = lane | static_cast<uint32_t>(width - 1);
  return std::bit_cast<T>(::expertmesh::cuda_host::Shuffle(
      mask, std::bit_cast<uint32_t>(value), lane + delta > last ? lane : lane + delta, site));
}

template <typename T>
T __ldg(const T* pointer) {
  return *pointer;
}

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
// Through volatile, so that no compiler contracts them, which is what these are for.
inline float __fadd_rn(float a, float b) {
  const volatile float sum = a + b;
  return sum;
}
inline float __fmul_rn(float a, float b) {
  const volatile float product = a * b;
  return product;
}
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }

inline unsigned int __float_as_uint(float value) { return std::bit_cast<unsigned int>(value); }
inline float __uint_as_float(unsigned int value) { return std::bit_cast<float>(value); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __int_as_float(int value) { return std::bit_cast<float>(value); }

#endif  // EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_RUNTIME_H_
