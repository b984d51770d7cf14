#include "common/tensor/decode_kernels.h"

#include <bit>

#include "common/base/cpu_features.h"
#include "common/tensor/dtype.h"

static_assert(std::endian::native == std::endian::little,
              "pairs of codes are stored low half first");

// Values are made by arithmetic and not looked up, so that compilers turn the loops into vectors;
// one body for all instruction sets, inlined into a function of its own target.
#define EXPERTMESH_INLINE inline __attribute__((always_inline))

namespace expertmesh {
namespace {

EXPERTMESH_INLINE float WithSign(float magnitude, uint32_t sign) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
}

// OCP FP8 E4M3: 1 sign, 4 exponent (bias 7) and 3 mantissa bits; no infinity, NaN is all ones. The
// bits are put where float32 has them, which is right for normal values; a subnormal one, m / 8 *
// 2^-6, comes out as (1 + m / 8) * 2^-7.
EXPERTMESH_INLINE float FromF8E4M3(uint32_t bits) {
  const uint32_t code = bits & 0x7fu;
  const float normal = std::bit_cast<float>((code << 20) + (120u << 23));
  float magnitude = code < 8 ? (normal + normal) - 0x1p-6f : normal;
  magnitude = code == 0x7fu ? std::bit_cast<float>(0x7fc00000u) : magnitude;
  return WithSign(magnitude, (bits & 0x80u) << 24);
}

// OCP MX FP4 E2M1: 1 sign, 2 exponent (bias 1) and 1 mantissa bits. The digits are twice the
// magnitudes 0, 0.5, 1, 1.5, 2, 3, 4 and 6.
EXPERTMESH_INLINE float FromF4(uint32_t bits) {
  const uint32_t twice = 0xc8643210u >> (4 * (bits & 7u)) & 15u;
  return WithSign(static_cast<float>(static_cast<int32_t>(twice)) * 0.5f, (bits & 8u) << 28);
}

EXPERTMESH_INLINE void Store(float value, float* target) { *target = value; }
EXPERTMESH_INLINE void Store(float value, uint16_t* target) { *target = BF16FromFloat(value); }

template <typename T>
EXPERTMESH_INLINE void DecodeF8(const uint8_t* __restrict source, size_t count, float scale,
                                T* __restrict target) {
  for (size_t i = 0; i < count; ++i) {
    Store(FromF8E4M3(source[i]) * scale, target + i);
  }
}

template <typename T>
EXPERTMESH_INLINE void DecodeF4(const uint8_t* __restrict source, size_t blocks,
                                const float* __restrict scales, T* __restrict target) {
  // In two steps, each of which compilers know how to do with vectors.
  uint16_t pairs[kF4MaxBlocks * kF4Block / 2];
  for (size_t i = 0; i < blocks * kF4Block / 2; ++i) {
    const uint32_t byte = source[i];
    pairs[i] = static_cast<uint16_t>((byte & 15u) | (byte >> 4) << 8);
  }
  const auto* const codes = reinterpret_cast<const uint8_t*>(pairs);
  for (size_t b = 0; b < blocks; ++b) {
    const float scale = scales[b];
    for (size_t i = b * kF4Block; i < (b + 1) * kF4Block; ++i) {
      Store(FromF4(codes[i]) * scale, target + i);
    }
  }
}

#define EXPERTMESH_VARIANT(name, target_isa)                                                      \
  struct name {                                                                                   \
    target_isa static void F8ToF32(const uint8_t* source, size_t count, float scale, float* to) { \
      DecodeF8(source, count, scale, to);                                                         \
    }                                                                                             \
    target_isa static void F8ToBF16(const uint8_t* source, size_t count, float scale,             \
                                    uint16_t* to) {                                               \
      DecodeF8(source, count, scale, to);                                                         \
    }                                                                                             \
    target_isa static void F4ToF32(const uint8_t* source, size_t blocks, const float* scales,     \
                                   float* to) {                                                   \
      DecodeF4(source, blocks, scales, to);                                                       \
    }                                                                                             \
    target_isa static void F4ToBF16(const uint8_t* source, size_t blocks, const float* scales,    \
                                    uint16_t* to) {                                               \
      DecodeF4(source, blocks, scales, to);                                                       \
    }                                                                                             \
    static constexpr DecodeKernels kKernels = {F8ToF32, F8ToBF16, F4ToF32, F4ToBF16};             \
  }

EXPERTMESH_VARIANT(Generic, );
#if defined(__x86_64__)
EXPERTMESH_VARIANT(Avx2, __attribute__((target("avx2"))));
EXPERTMESH_VARIANT(Avx512, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))));
#endif

}  // namespace

std::vector<const DecodeKernels*> AllDecodeKernels() {
  std::vector<const DecodeKernels*> all = {&Generic::kKernels};
#if defined(__x86_64__)
  if (CpuHasAvx2()) {
    all.push_back(&Avx2::kKernels);
  }
  if (CpuHasAvx512()) {
    all.push_back(&Avx512::kKernels);
  }
#endif
  return all;
}

const DecodeKernels& GetDecodeKernels() {
  static const DecodeKernels& kernels = *AllDecodeKernels().back();
  return kernels;
}

}  // namespace expertmesh
