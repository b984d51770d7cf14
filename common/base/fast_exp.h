// exp for vector loops: no branch and no call, so that a loop around it becomes vectors.
#ifndef EXPERTMESH_COMMON_BASE_FAST_EXP_H_
#define EXPERTMESH_COMMON_BASE_FAST_EXP_H_

#include <cstdint>

#include "common/base/host_device.h"

namespace expertmesh {

// exp(x), relative error about 1e-7; infinite from 88.8, flushed to 0 below -87; NaN stays NaN.
EXPERTMESH_HOST_DEVICE_INLINE float FastExp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.8f ? 88.8f : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the sum.
  constexpr float kMagic = 12582912.0f;
  const float shifted = x * 1.44269504f + kMagic;
  const float n = shifted - kMagic;
  // ln 2 in two parts; n times the first is exact.
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r) * r + r + 1.0f;
  // Two factors: 2^128 alone is no float.
  const uint32_t exponent =
      __builtin_bit_cast(uint32_t, shifted) - __builtin_bit_cast(uint32_t, kMagic);
  const float half = __builtin_bit_cast(float, (exponent - 1u + 127u) << 23);
  return (p * half) * 2.0f;
}

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_FAST_EXP_H_
