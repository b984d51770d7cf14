// How an expert lies in device memory. Private to the room.
//
// Rows and inner dimensions are padded with zeros to whole steps of 64. In each group of 64 packed
// rows of the first product of a gated expert there are 32 of gate and the 32 of up that belong to
// them, so that whatever has the sums of one has those of the other:
//   bf16     8 of gate, 8 of up, 8 of gate ...
//   float32  32 of gate, 32 of up
// Rows of others are in order. Values then lie
//   in rows      row by row, as cuBLAS takes them;
//   for kernels  bf16: 16 rows by 32 of the inner dimension after the other, each as the 16 bytes
//                that lane 0 has of the first tensor-core instruction, those of lane 1 ..., then
//                those of the second instruction;
//                float32: 64 rows by 4 of the inner dimension after the other.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_EXPERT_LAYOUT_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_EXPERT_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/experts/cuda/device_types.h"
#include "common/model/expert_weights.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/dtype.h"

namespace expertmesh::experts {

enum class Arrangement { kForKernels, kInRows };

struct PackedShape {
  Dtype dtype = Dtype::kBF16;
  Arrangement arrangement = Arrangement::kForKernels;
  size_t d_model = 0;
  size_t intermediate = 0;  // The width of the slice.
  bool gated = true;

  static size_t Padded(size_t size) { return (size + kPackedStep - 1) / kPackedStep * kPackedStep; }
  size_t up_rows() const { return (gated ? 2 : 1) * Padded(intermediate); }
  size_t up_inner() const { return Padded(d_model); }
  size_t down_rows() const { return Padded(d_model); }
  size_t down_inner() const { return Padded(intermediate); }
  // What one group of 64 rows takes.
  size_t up_group_bytes() const { return kPackedStep * up_inner() * BytesOf(dtype); }
  size_t down_group_bytes() const { return kPackedStep * down_inner() * BytesOf(dtype); }
  size_t up_bytes() const { return up_rows() / kPackedStep * up_group_bytes(); }
  size_t down_bytes() const { return down_rows() / kPackedStep * down_group_bytes(); }
};

// Keeps its memory. Not thread-safe. `weights` are those of the slice, decodable, of `shape`.
class GroupPacker {
 public:
  // Group `group` of the first or the second matrix, to `target`, 4-byte aligned.
  void PackUp(const PackedShape& shape, const ExpertWeights& weights, size_t group,
              uint8_t* target);
  void PackDown(const PackedShape& shape, const ExpertWeights& weights, size_t group,
                uint8_t* target);

 private:
  void Decode(const MatrixView& view, Dtype dtype, size_t row, size_t rows, size_t inner,
              uint8_t* target);
  void Arrange(const PackedShape& shape, bool turns, size_t inner, uint8_t* target) const;

  AlignedBuffer rows_;  // A group before it is arranged: gate, then up; or in order.
};

// Biases in the order of packed rows, zero where there are none.
std::vector<float> PackedUpBias(const PackedShape& shape, const ExpertWeights& weights);
std::vector<float> PackedDownBias(const PackedShape& shape, const ExpertWeights& weights);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_EXPERT_LAYOUT_H_
