#include "common/model/expert_slice.h"

#include "common/tensor/matrix_slice.h"

namespace expertmesh {

ExpertWeights SliceOf(const ExpertWeights& weights, IntermediateSlice slice) {
  const size_t width = weights.up.rows / slice.count;
  const size_t begin = slice.index * width;
  ExpertWeights part = weights;
  part.up = RowsOf(weights.up, begin, width);
  part.down = ColumnsOf(weights.down, begin, width);
  if (!weights.gate.empty()) {
    part.gate = RowsOf(weights.gate, begin, width);
  }
  if (!weights.up_bias.empty()) {
    part.up_bias = ColumnsOf(weights.up_bias, begin, width);
  }
  if (!weights.gate_bias.empty()) {
    part.gate_bias = ColumnsOf(weights.gate_bias, begin, width);
  }
  if (slice.index != 0) {
    part.down_bias = {};
  }
  return part;
}

uint64_t StoredBytes(const ExpertWeights& weights) {
  uint64_t bytes = 0;
  for (const MatrixView* view : {&weights.gate, &weights.up, &weights.down, &weights.gate_bias,
                                 &weights.up_bias, &weights.down_bias}) {
    bytes += StoredBytes(*view);
  }
  return bytes;
}

}  // namespace expertmesh
