// The inner loops of decode_matrix.h, for the widest vectors this machine has. The same bits on
// every machine. Private to common/tensor.
#ifndef EXPERTMESH_COMMON_TENSOR_DECODE_KERNELS_H_
#define EXPERTMESH_COMMON_TENSOR_DECODE_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace expertmesh {

// Elements of a block of kF4, and most blocks of one call.
inline constexpr size_t kF4Block = 32;
inline constexpr size_t kF4MaxBlocks = 32;

// Each element becomes scale * value: rounded to float32, and for bf16 rounded again.
struct DecodeKernels {
  void (*f8_to_f32)(const uint8_t* source, size_t count, float scale, float* target);
  void (*f8_to_bf16)(const uint8_t* source, size_t count, float scale, uint16_t* target);
  // Whole blocks of kF4Block elements with a scale each.
  void (*f4_to_f32)(const uint8_t* source, size_t blocks, const float* scales, float* target);
  void (*f4_to_bf16)(const uint8_t* source, size_t blocks, const float* scales, uint16_t* target);
};

// Never changes while the process runs.
const DecodeKernels& GetDecodeKernels();

// All that this machine can run, the widest last.
std::vector<const DecodeKernels*> AllDecodeKernels();

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TENSOR_DECODE_KERNELS_H_
