// Rows as 8-bit integers: blocks of 128 consecutive values of a row (its last block may be
// shorter), one float32 scale to a block; value = integer * scale.
#ifndef EXPERTMESH_COMMON_TENSOR_INT8_BLOCKS_H_
#define EXPERTMESH_COMMON_TENSOR_INT8_BLOCKS_H_

#include <cstddef>
#include <cstdint>

#include "common/tensor/dtype.h"

namespace expertmesh {

inline constexpr size_t kInt8Block = 128;

// Blocks of one row of `cols` values.
inline constexpr uint64_t Int8Blocks(uint64_t cols) {
  return cols / kInt8Block + (cols % kInt8Block != 0 ? 1 : 0);
}

// Symmetric: scale = max|x| / 127, integer = x / scale to the nearest, ties to even, from -127 to
// 127. So a value changes by at most half of its block's scale (a block below 1e-36, whose scale is
// subnormal, by more).
//   A block of zeros has scale 0. A block with NaN or infinity has scale NaN and integers 0: all of
//   it is NaN when it is read, so nothing finite is made up for what was not.
//
//   row        [cols] of `from`, an activation type
//   quantised  [cols]
//   scales     [Int8Blocks(cols)]
// What a row becomes depends on this row alone.
void QuantiseRow(Dtype from, const void* row, size_t cols, int8_t* quantised, float* scales);

// `count` values (at most kInt8Block) of one block, to `to`, an activation type. `target` must be
// aligned for its type.
void DequantiseBlock(const void* quantised, float scale, size_t count, Dtype to, void* target);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TENSOR_INT8_BLOCKS_H_
