// The vector loops of routing over one token's row. Every variant (portable, AVX2, AVX-512) works
// on the same sixteen lanes in the same order without fused multiply-add, so all of them give the
// same bits: routing does not depend on the machine a router runs on.
#ifndef EXPERTMESH_COMMON_GATE_ROW_KERNELS_H_
#define EXPERTMESH_COMMON_GATE_ROW_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace expertmesh::gate {

inline constexpr size_t kRowLanes = 16;

// Size of a row with its padding: what a kernel may touch.
inline constexpr size_t PaddedRow(size_t count) {
  return (count + kRowLanes - 1) / kRowLanes * kRowLanes;
}

// Rows of floats and keys have room for PaddedRow(count) elements; what lies past `count` is
// overwritten with anything. No alignment is needed.
struct RowKernels {
  std::string_view name;

  // In place, float32, the largest element subtracted first. A NaN or +Inf anywhere, and a row of
  // -Inf alone, make every element NaN.
  void (*softmax)(float* row, size_t count);

  // In place, 1 / (1 + exp(-x)).
  void (*sigmoid)(float* row, size_t count);

  // Integers in the order in which experts are preferred: larger float, larger key; NaN is the
  // largest; equal floats (-0 and +0 too) have equal keys. Padding becomes the smallest int32.
  void (*order_keys)(const float* row, size_t count, int32_t* keys);

  // Indices of the k largest keys, 1 <= k <= count, largest first, the lower index first among
  // equals. False, with nothing written, when k exceeds kMaxFastK or too many keys tie for a place:
  // use another way then.
  bool (*select)(const int32_t* keys, size_t count, size_t k, uint32_t* ids);

  // How many keys come before or at the place of key `least` at index `last`: those that are
  // larger, and equal ones up to that index.
  size_t (*count_best)(const int32_t* keys, size_t count, int32_t least, uint32_t last);

  // Sum of the two largest values of each of `groups` equal runs of `size` >= 2 floats. A NaN in a
  // run makes its sum NaN.
  void (*top_two_sums)(const float* row, size_t groups, size_t size, float* sums);
};

inline constexpr size_t kMaxFastK = 16;

// The fastest variant for this CPU.
const RowKernels& BestRowKernels();

// Every variant this CPU can run, the portable one first.
std::vector<const RowKernels*> AllRowKernelsForTest();

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_ROW_KERNELS_H_
