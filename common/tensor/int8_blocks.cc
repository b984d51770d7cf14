#include "common/tensor/int8_blocks.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "common/base/check.h"
#include "common/base/cpu_features.h"

// One body for all instruction sets, inlined into a function of its own target.
#define EXPERTMESH_INLINE inline __attribute__((always_inline))

namespace expertmesh {
namespace {

constexpr float kLargestInteger = 127.0f;
// The largest whose 127-fold is finite, so that the largest float32 does not become an infinity.
constexpr float kLargestScale = 0x1.020406p+121f;
// Adding it leaves the nearest integer (ties to even) in the low bits of the sum: vectors of any
// instruction set can do that.
constexpr float kRounder = 0x1.8p+23f;

// Returns the scale.
EXPERTMESH_INLINE float Quantise(const float* __restrict values, size_t count,
                                 int8_t* __restrict quantised) {
  // Magnitudes are ordered like their bits, with NaN above infinity.
  int32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    const int32_t magnitude = std::bit_cast<int32_t>(values[i]) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  const bool finite = largest < 0x7f800000;
  const float scale = finite
                          ? std::min(std::bit_cast<float>(largest) / kLargestInteger, kLargestScale)
                          : std::numeric_limits<float>::quiet_NaN();
  if (!(scale > 0.0f)) {
    std::memset(quantised, 0, count);
    return scale;
  }
  for (size_t i = 0; i < count; ++i) {
    float scaled = values[i] / scale;
    scaled = scaled > kLargestInteger ? kLargestInteger : scaled;
    scaled = scaled < -kLargestInteger ? -kLargestInteger : scaled;
    quantised[i] = static_cast<int8_t>(std::bit_cast<int32_t>(scaled + kRounder) -
                                       std::bit_cast<int32_t>(kRounder));
  }
  return scale;
}

EXPERTMESH_INLINE void Dequantise(const int8_t* __restrict quantised, float scale, size_t count,
                                  float* __restrict values) {
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(quantised[i]) * scale;
  }
}

struct Kernels {
  float (*quantise)(const float* values, size_t count, int8_t* quantised);
  void (*dequantise)(const int8_t* quantised, float scale, size_t count, float* values);
};

#define EXPERTMESH_KERNELS(name, attributes)                                              \
  attributes float Quantise##name(const float* values, size_t count, int8_t* quantised) { \
    return Quantise(values, count, quantised);                                            \
  }                                                                                       \
  attributes void Dequantise##name(const int8_t* quantised, float scale, size_t count,    \
                                   float* values) {                                       \
    Dequantise(quantised, scale, count, values);                                          \
  }

EXPERTMESH_KERNELS(Generic, )
#if defined(__x86_64__)
EXPERTMESH_KERNELS(Avx2, __attribute__((target("avx2"))))
EXPERTMESH_KERNELS(Avx512, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))))
#endif
#undef EXPERTMESH_KERNELS

Kernels ChooseKernels() {
#if defined(__x86_64__)
  if (CpuHasAvx512()) {
    return {QuantiseAvx512, DequantiseAvx512};
  }
  if (CpuHasAvx2()) {
    return {QuantiseAvx2, DequantiseAvx2};
  }
#endif
  return {QuantiseGeneric, DequantiseGeneric};
}

const Kernels& BestKernels() {
  static const Kernels kernels = ChooseKernels();
  return kernels;
}

}  // namespace

void QuantiseRow(Dtype from, const void* row, size_t cols, int8_t* quantised, float* scales) {
  const Kernels& kernels = BestKernels();
  const auto* source = static_cast<const uint8_t*>(row);
  alignas(64) float values[kInt8Block];
  for (size_t begin = 0; begin < cols; begin += kInt8Block) {
    const size_t count = std::min(kInt8Block, cols - begin);
    ConvertElements(from, source + begin * BytesOf(from), Dtype::kF32, values, count);
    *scales++ = kernels.quantise(values, count, quantised + begin);
  }
}

void DequantiseBlock(const void* quantised, float scale, size_t count, Dtype to, void* target) {
  EXPERTMESH_CHECK(count <= kInt8Block);
  const Kernels& kernels = BestKernels();
  const auto* integers = static_cast<const int8_t*>(quantised);
  if (to == Dtype::kF32) {
    kernels.dequantise(integers, scale, count, static_cast<float*>(target));
    return;
  }
  alignas(64) float values[kInt8Block];
  kernels.dequantise(integers, scale, count, values);
  ConvertElements(Dtype::kF32, values, to, target, count);
}

}  // namespace expertmesh
