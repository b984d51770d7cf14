// Stand-in for the toolkit's header of this name.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_BF16_H_
#define EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_BF16_H_

#include <bit>
#include <cstdint>

#include "cuda_host/vector_types.h"

struct __nv_bfloat16_raw {
  unsigned short x;
};

// Uninitialised by default, as on the device.
struct alignas(2) __nv_bfloat16 {
  __nv_bfloat16() = default;
  __nv_bfloat16(const __nv_bfloat16_raw& raw) : bits(raw.x) {}
  operator __nv_bfloat16_raw() const { return {bits}; }
  unsigned short bits;
};
typedef __nv_bfloat16 nv_bfloat16;

struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  return __nv_bfloat16(__nv_bfloat16_raw{bits});
}

inline float __bfloat162float(__nv_bfloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// To nearest, ties to even; every NaN becomes the one that the toolkit makes of it.
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return __ushort_as_bfloat16(0x7fff);
  }
  return __ushort_as_bfloat16(
      static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16));
}

inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}

#endif  // EXPERTMESH_TESTS_CUDA_HOST_INCLUDE_CUDA_BF16_H_
