// Vectors under the kernels of row_kernels.cc; included by it alone.
//
// Bodies are written once, in GCC's vector extensions (which clang has too), over vectors of the
// width that an instruction set has, and are inlined into one wrapper per set. Vectors go by
// reference: by value they would cross an ABI that depends on the set. A row is always seen as
// blocks of sixteen lanes, be they one vector or four, and lanes are folded in one order: hence the
// same bits everywhere. row_kernels.cc is compiled with -ffp-contract=off.
#ifndef EXPERTMESH_COMMON_GATE_ROW_VECTORS_H_
#define EXPERTMESH_COMMON_GATE_ROW_VECTORS_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "common/gate/row_kernels.h"

#define EXPERTMESH_INLINE inline __attribute__((always_inline))

namespace expertmesh::gate::row_vectors {

inline constexpr int32_t kPadKey = std::numeric_limits<int32_t>::min();
inline constexpr int32_t kNanKey = std::numeric_limits<int32_t>::max();

struct Width16 {
  using Floats = float __attribute__((vector_size(16)));
  using Ints = int32_t __attribute__((vector_size(16)));
  using Words = uint32_t __attribute__((vector_size(16)));
  static constexpr Ints kIota = {0, 1, 2, 3};
};
struct Width32 {
  using Floats = float __attribute__((vector_size(32)));
  using Ints = int32_t __attribute__((vector_size(32)));
  using Words = uint32_t __attribute__((vector_size(32)));
  static constexpr Ints kIota = {0, 1, 2, 3, 4, 5, 6, 7};
};
struct Width64 {
  using Floats = float __attribute__((vector_size(64)));
  using Ints = int32_t __attribute__((vector_size(64)));
  using Words = uint32_t __attribute__((vector_size(64)));
  static constexpr Ints kIota = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
};

template <typename Width>
inline constexpr size_t kLanes = sizeof(typename Width::Floats) / sizeof(float);
// Vectors to a block of kRowLanes.
template <typename Width>
inline constexpr size_t kParts = kRowLanes / kLanes<Width>;

template <typename Vector, typename T>
EXPERTMESH_INLINE void Load(const T* from, Vector& to) {
  std::memcpy(&to, from, sizeof(to));
}

template <typename Vector, typename T>
EXPERTMESH_INLINE void Store(const Vector& from, T* to) {
  std::memcpy(to, &from, sizeof(from));
}

struct Add {
  template <typename Vector>
  static EXPERTMESH_INLINE void Apply(Vector& a, const Vector& b) {
    a = a + b;
  }
};
// Keeps `a` when b is NaN.
struct Larger {
  template <typename Vector>
  static EXPERTMESH_INLINE void Apply(Vector& a, const Vector& b) {
    a = b > a ? b : a;
  }
};
struct Smaller {
  template <typename Vector>
  static EXPERTMESH_INLINE void Apply(Vector& a, const Vector& b) {
    a = b < a ? b : a;
  }
};

template <size_t kShift, typename Vector, size_t... I>
EXPERTMESH_INLINE void Rotate(const Vector& from, Vector& to, std::index_sequence<I...>) {
  to = __builtin_shufflevector(from, from, ((I + kShift) % sizeof...(I))...);
}

// Folds the lanes of a vector, halves upon halves; every lane ends with the result.
template <typename Op, size_t kShift, typename Vector>
EXPERTMESH_INLINE void FoldLanes(Vector& vector) {
  if constexpr (kShift > 0) {
    Vector other;
    Rotate<kShift>(vector, other, std::make_index_sequence<sizeof(Vector) / sizeof(float)>{});
    Op::Apply(vector, other);
    FoldLanes<Op, kShift / 2>(vector);
  }
}

// Folds a block into part[0], the same way whatever the width.
template <typename Op, typename Width, typename Vector>
EXPERTMESH_INLINE void Fold(Vector (&part)[kParts<Width>]) {
  for (size_t half = kParts<Width> / 2; half > 0; half /= 2) {
    for (size_t p = 0; p < half; ++p) {
      Op::Apply(part[p], part[p + half]);
    }
  }
  FoldLanes<Op, kLanes<Width> / 2>(part[0]);
}

// x becomes exp(x), within about one unit in the last place; subnormals, 0, Inf and NaN included.
template <typename Width>
EXPERTMESH_INLINE void Exp(typename Width::Floats& x) {
  using Floats = typename Width::Floats;
  using Ints = typename Width::Ints;
  using Words = typename Width::Words;
  constexpr float kMagic = 0x1.8p23f;  // Adding it rounds to an integer, held in the low bits.
  x = x < -104.0f ? Floats{} - 104.0f : x;
  x = x > 89.0f ? Floats{} + 89.0f : x;
  const Floats shifted = x * 0x1.715476p0f + kMagic;
  const Floats n = shifted - kMagic;
  const Floats r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;  // ln 2 in two parts.
  // (exp(r) - 1 - r) / r^2 on [-ln 2 / 2, ln 2 / 2], interpolated at Chebyshev nodes.
  Floats p = r * 0.00139262131f + 0.00836320315f;
  p = p * r + 0.0416665561f;
  p = p * r + 0.166665763f;
  p = p * r + 0.5f;
  p = (p * r) * r + r;
  p = p + 1.0f;
  // 2^n in two factors: n reaches 128, and -150 for subnormal results.
  const Words power = reinterpret_cast<Words>(shifted) - std::bit_cast<uint32_t>(kMagic);
  const Words half = reinterpret_cast<Words>(reinterpret_cast<Ints>(power) >> 1);
  const Floats low = reinterpret_cast<Floats>((half + 127u) << 23);
  const Floats high = reinterpret_cast<Floats>((power - half + 127u) << 23);
  x = (p * low) * high;
}

template <typename Width>
EXPERTMESH_INLINE void OrderKey(const typename Width::Floats& value, typename Width::Ints& key) {
  using Ints = typename Width::Ints;
  const typename Width::Floats positive_zero = value + 0.0f;  // -0 becomes +0.
  const Ints bits = reinterpret_cast<Ints>(positive_zero);
  key = bits ^ ((bits >> 31) & 0x7fffffff);
  key = value != value ? Ints{} + kNanKey : key;
}

EXPERTMESH_INLINE int32_t OrderKeyOf(float value) {
  const int32_t bits = std::bit_cast<int32_t>(value + 0.0f);
  return value != value ? kNanKey : bits ^ ((bits >> 31) & 0x7fffffff);
}

// Inverse of OrderKey, the sign of zero apart.
EXPERTMESH_INLINE float ValueOfKey(int32_t key) {
  return key == kNanKey ? std::numeric_limits<float>::quiet_NaN()
                        : std::bit_cast<float>(key ^ ((key >> 31) & 0x7fffffff));
}

}  // namespace expertmesh::gate::row_vectors

#endif  // EXPERTMESH_COMMON_GATE_ROW_VECTORS_H_
