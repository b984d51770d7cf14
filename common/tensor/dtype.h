// Element types, and conversion of rows between them.
#ifndef EXPERTMESH_COMMON_TENSOR_DTYPE_H_
#define EXPERTMESH_COMMON_TENSOR_DTYPE_H_

#include <bit>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace expertmesh {

// Every type a safetensors file can hold, and one of the wire. Activations use kF32, kBF16 and kF16
// only.
enum class Dtype : uint8_t {
  kBool,
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kU64,
  kI64,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kF4,      // Two values to a byte; sizes are in bits.
  kF6E2M3,  // Six bits, packed.
  kF6E3M2,
  kF16,
  kBF16,
  kF32,
  kF64,
  kC64,  // Complex of two F32.
  // Wire only: an int8 for each element, and scales beside them, see int8_blocks.h.
  kI8Block128,
};

// Size of one element in bits; scales are not counted.
size_t BitsOf(Dtype dtype);

// Size of one element in bytes. The type must be a whole number of bytes (all but kF4, kF6*).
size_t BytesOf(Dtype dtype);

// Name as safetensors writes it ("BF16").
absl::string_view NameOf(Dtype dtype);

inline bool IsActivationDtype(Dtype dtype) {
  return dtype == Dtype::kF32 || dtype == Dtype::kBF16 || dtype == Dtype::kF16;
}

inline float FloatFromBF16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Round to nearest even; NaN stays NaN (quiet).
inline uint16_t BF16FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  }
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// IEEE binary16, subnormals included; overflow goes to infinity.
float FloatFromF16(uint16_t bits);
uint16_t F16FromFloat(float value);

// Converts `count` elements. Both types must be activation types. Neither pointer needs to be
// aligned; the ranges must not overlap.
void ConvertElements(Dtype from, const void* source, Dtype to, void* target, size_t count);

// True when any of `count` elements of an activation type is NaN or infinite.
bool HasNonFinite(Dtype dtype, const void* data, size_t count);

// True when any of `count` elements is finite and would be infinite as `to`; both are activation
// types. (F16 ends at 65504, BF16 somewhat below the largest float32.)
bool HasOverflow(Dtype from, const void* data, size_t count, Dtype to);

// target[i] += source[i], of an activation type. Neither pointer needs to be aligned; the ranges
// must not overlap.
void AddElements(Dtype from, const void* source, size_t count, float* target);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TENSOR_DTYPE_H_
