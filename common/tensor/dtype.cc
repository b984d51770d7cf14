#include "common/tensor/dtype.h"

#include <bit>
#include <cstring>
#include <limits>

#include "absl/strings/string_view.h"
#include "common/base/check.h"
#include "common/base/cpu_features.h"

namespace expertmesh {
namespace {

template <typename T>
T LoadUnaligned(const void* source, size_t index) {
  T value;
  std::memcpy(&value, static_cast<const uint8_t*>(source) + index * sizeof(T), sizeof(T));
  return value;
}

template <typename T>
void StoreUnaligned(void* target, size_t index, T value) {
  std::memcpy(static_cast<uint8_t*>(target) + index * sizeof(T), &value, sizeof(T));
}

#define EXPERTMESH_INLINE inline __attribute__((always_inline))

struct F32 {
  using Bits = float;
  EXPERTMESH_INLINE static float Decode(float bits) { return bits; }
  EXPERTMESH_INLINE static float Encode(float value) { return value; }
};
struct BF16 {
  using Bits = uint16_t;
  EXPERTMESH_INLINE static float Decode(uint16_t bits) { return FloatFromBF16(bits); }
  EXPERTMESH_INLINE static uint16_t Encode(float value) { return BF16FromFloat(value); }
};
// Without branches, for vectors.
struct F16 {
  using Bits = uint16_t;
  EXPERTMESH_INLINE static float Decode(uint16_t bits) {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t magnitude = bits & 0x7fffu;
    const uint32_t mantissa = bits & 0x3ffu;
    // Zero or subnormal: mantissa * 2^-24, exact in float.
    const float small = static_cast<float>(static_cast<int32_t>(mantissa)) * 0x1p-24f;
    uint32_t value = (magnitude << 13) + (112u << 23);
    value = magnitude >= 0x7c00u ? 0x7f800000u | (mantissa << 13) : value;
    value = magnitude < 0x0400u ? std::bit_cast<uint32_t>(small) : value;
    return std::bit_cast<float>(sign | value);
  }
  EXPERTMESH_INLINE static uint16_t Encode(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const int32_t magnitude = static_cast<int32_t>(bits & 0x7fffffffu);
    const int32_t odd = (magnitude >> 13) & 1;
    int32_t half = (magnitude - 0x38000000 + 0xfff + odd) >> 13;
    // Below 2^-14: subnormal; adding 0.5 rounds at bit 2^-24.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    half = magnitude < 0x38800000 ? std::bit_cast<int32_t>(shifted) - 0x3f000000 : half;
    half = magnitude >= 0x477ff000 ? 0x7c00 : half;  // Rounds to at least 65520: infinity.
    half = magnitude > 0x7f800000 ? 0x7e00 | ((magnitude >> 13) & 0x3ff) : half;
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(half));
  }
};

template <typename From, typename To>
EXPERTMESH_INLINE void ConvertLoop(const void* source, void* target, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const float value = From::Decode(LoadUnaligned<typename From::Bits>(source, i));
    StoreUnaligned<typename To::Bits>(target, i, To::Encode(value));
  }
}

template <typename From>
EXPERTMESH_INLINE void ConvertFrom(const void* source, Dtype to, void* target, size_t count) {
  if (to == Dtype::kF32) {
    ConvertLoop<From, F32>(source, target, count);
  } else if (to == Dtype::kBF16) {
    ConvertLoop<From, BF16>(source, target, count);
  } else {
    EXPERTMESH_CHECK(to == Dtype::kF16);
    ConvertLoop<From, F16>(source, target, count);
  }
}

EXPERTMESH_INLINE void ConvertAny(Dtype from, const void* source, Dtype to, void* target,
                                  size_t count) {
  if (from == Dtype::kF32) {
    ConvertFrom<F32>(source, to, target, count);
  } else if (from == Dtype::kBF16) {
    ConvertFrom<BF16>(source, to, target, count);
  } else {
    EXPERTMESH_CHECK(from == Dtype::kF16);
    ConvertFrom<F16>(source, to, target, count);
  }
}

// True when an element has all bits of `exponent` set.
template <typename Bits>
EXPERTMESH_INLINE bool AnyWithExponent(const void* data, size_t count, Bits exponent) {
  Bits found = 0;
  for (size_t i = 0; i < count; ++i) {
    const Bits bits = LoadUnaligned<Bits>(data, i);
    found |= static_cast<Bits>((bits & exponent) == exponent ? 1 : 0);
  }
  return found != 0;
}

EXPERTMESH_INLINE bool AnyNonFinite(Dtype dtype, const void* data, size_t count) {
  if (dtype == Dtype::kF32) {
    return AnyWithExponent<uint32_t>(data, count, 0x7f800000u);
  }
  if (dtype == Dtype::kBF16) {
    return AnyWithExponent<uint16_t>(data, count, 0x7f80u);
  }
  EXPERTMESH_CHECK(dtype == Dtype::kF16);
  return AnyWithExponent<uint16_t>(data, count, 0x7c00u);
}

// Magnitudes from which on a float32 rounds to infinity, as bits, which are ordered like them.
constexpr int32_t kBeyondF16 = 0x477ff000;   // 65520
constexpr int32_t kBeyondBF16 = 0x7f7f8000;  // Half a unit above the largest.
constexpr int32_t kInfinity = 0x7f800000;

template <typename From>
EXPERTMESH_INLINE bool AnyBeyond(const void* data, size_t count, int32_t limit) {
  int32_t found = 0;
  for (size_t i = 0; i < count; ++i) {
    const float value = From::Decode(LoadUnaligned<typename From::Bits>(data, i));
    const int32_t magnitude = std::bit_cast<int32_t>(value) & 0x7fffffff;
    found |= (magnitude >= limit) & (magnitude < kInfinity) ? 1 : 0;
  }
  return found != 0;
}

EXPERTMESH_INLINE bool AnyOverflow(Dtype from, const void* data, size_t count, int32_t limit) {
  if (from == Dtype::kF32) {
    return AnyBeyond<F32>(data, count, limit);
  }
  EXPERTMESH_CHECK(from == Dtype::kBF16);
  return AnyBeyond<BF16>(data, count, limit);
}

template <typename From>
EXPERTMESH_INLINE void AddLoop(const void* source, size_t count, float* target) {
  for (size_t i = 0; i < count; ++i) {
    target[i] += From::Decode(LoadUnaligned<typename From::Bits>(source, i));
  }
}

EXPERTMESH_INLINE void AddAny(Dtype from, const void* source, size_t count, float* target) {
  if (from == Dtype::kF32) {
    AddLoop<F32>(source, count, target);
  } else if (from == Dtype::kBF16) {
    AddLoop<BF16>(source, count, target);
  } else {
    EXPERTMESH_CHECK(from == Dtype::kF16);
    AddLoop<F16>(source, count, target);
  }
}

// The loops for the widest vectors this machine has.
struct Loops {
  void (*convert)(Dtype from, const void* source, Dtype to, void* target, size_t count);
  bool (*has_non_finite)(Dtype dtype, const void* data, size_t count);
  bool (*has_overflow)(Dtype from, const void* data, size_t count, int32_t limit);
  void (*add)(Dtype from, const void* source, size_t count, float* target);
};

#define EXPERTMESH_LOOPS(NAME, TARGET)                                                          \
  struct NAME {                                                                                 \
    TARGET static void Convert(Dtype from, const void* source, Dtype to, void* target,          \
                               size_t count) {                                                  \
      ConvertAny(from, source, to, target, count);                                              \
    }                                                                                           \
    TARGET static bool HasNonFinite(Dtype dtype, const void* data, size_t count) {              \
      return AnyNonFinite(dtype, data, count);                                                  \
    }                                                                                           \
    TARGET static bool HasOverflow(Dtype from, const void* data, size_t count, int32_t limit) { \
      return AnyOverflow(from, data, count, limit);                                             \
    }                                                                                           \
    TARGET static void Add(Dtype from, const void* source, size_t count, float* target) {       \
      AddAny(from, source, count, target);                                                      \
    }                                                                                           \
    static constexpr Loops kLoops = {Convert, HasNonFinite, HasOverflow, Add};                  \
  };

EXPERTMESH_LOOPS(Generic, )
#if defined(__x86_64__)
EXPERTMESH_LOOPS(Avx2, __attribute__((target("avx2"))))
EXPERTMESH_LOOPS(Avx512, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))))
#endif

const Loops& ChooseLoops() {
#if defined(__x86_64__)
  if (CpuHasAvx512()) {
    return Avx512::kLoops;
  }
  if (CpuHasAvx2()) {
    return Avx2::kLoops;
  }
#endif
  return Generic::kLoops;
}

const Loops& VectorLoops() {
  static const Loops& loops = ChooseLoops();
  return loops;
}

}  // namespace

size_t BitsOf(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF4:
      return 4;
    case Dtype::kF6E2M3:
    case Dtype::kF6E3M2:
      return 6;
    case Dtype::kBool:
    case Dtype::kU8:
    case Dtype::kI8:
    case Dtype::kF8E4M3:
    case Dtype::kF8E5M2:
    case Dtype::kF8E8M0:
    case Dtype::kI8Block128:
      return 8;
    case Dtype::kU16:
    case Dtype::kI16:
    case Dtype::kF16:
    case Dtype::kBF16:
      return 16;
    case Dtype::kU32:
    case Dtype::kI32:
    case Dtype::kF32:
      return 32;
    case Dtype::kU64:
    case Dtype::kI64:
    case Dtype::kF64:
    case Dtype::kC64:
      return 64;
  }
  EXPERTMESH_CHECK(false);
}

size_t BytesOf(Dtype dtype) {
  const size_t bits = BitsOf(dtype);
  EXPERTMESH_CHECK(bits % 8 == 0);
  return bits / 8;
}

absl::string_view NameOf(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBool:
      return "BOOL";
    case Dtype::kU8:
      return "U8";
    case Dtype::kI8:
      return "I8";
    case Dtype::kU16:
      return "U16";
    case Dtype::kI16:
      return "I16";
    case Dtype::kU32:
      return "U32";
    case Dtype::kI32:
      return "I32";
    case Dtype::kU64:
      return "U64";
    case Dtype::kI64:
      return "I64";
    case Dtype::kF8E4M3:
      return "F8_E4M3";
    case Dtype::kF8E5M2:
      return "F8_E5M2";
    case Dtype::kF8E8M0:
      return "F8_E8M0";
    case Dtype::kF4:
      return "F4";
    case Dtype::kF6E2M3:
      return "F6_E2M3";
    case Dtype::kF6E3M2:
      return "F6_E3M2";
    case Dtype::kF16:
      return "F16";
    case Dtype::kBF16:
      return "BF16";
    case Dtype::kF32:
      return "F32";
    case Dtype::kF64:
      return "F64";
    case Dtype::kC64:
      return "C64";
    case Dtype::kI8Block128:
      return "INT8_BLOCK128";
  }
  EXPERTMESH_CHECK(false);
}

float FloatFromF16(uint16_t bits) { return F16::Decode(bits); }

uint16_t F16FromFloat(float value) { return F16::Encode(value); }

void ConvertElements(Dtype from, const void* source, Dtype to, void* target, size_t count) {
  if (from == to) {
    EXPERTMESH_CHECK(IsActivationDtype(from));
    if (count > 0) {
      std::memcpy(target, source, count * BytesOf(from));
    }
    return;
  }
  VectorLoops().convert(from, source, to, target, count);
}

bool HasNonFinite(Dtype dtype, const void* data, size_t count) {
  return VectorLoops().has_non_finite(dtype, data, count);
}

bool HasOverflow(Dtype from, const void* data, size_t count, Dtype to) {
  EXPERTMESH_CHECK(IsActivationDtype(from) && IsActivationDtype(to));
  if (from == to || to == Dtype::kF32 || from == Dtype::kF16) {
    return false;
  }
  return VectorLoops().has_overflow(from, data, count,
                                    to == Dtype::kF16 ? kBeyondF16 : kBeyondBF16);
}

void AddElements(Dtype from, const void* source, size_t count, float* target) {
  VectorLoops().add(from, source, count, target);
}

}  // namespace expertmesh
