// The gate's product where weights and rows are bfloat16 values, on AMX tiles. Private to
// GateMatmul.
#ifndef EXPERTMESH_COMMON_GATE_GATE_TILES_H_
#define EXPERTMESH_COMMON_GATE_GATE_TILES_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "common/tensor/aligned_buffer.h"

namespace expertmesh::gate {

// True when each value is one that bfloat16 has.
bool HoldsBF16(absl::Span<const float> values);

// Immutable and thread-safe with a scratch per thread.
class GateTiles {
 public:
  struct Scratch {
    AlignedBuffer x;
    AlignedBuffer y;
  };

  // Packs `weights`, [outputs, inputs] row-major. Null where this machine has no tiles or a weight
  // is not a value of bfloat16. Throws std::bad_alloc.
  static std::unique_ptr<const GateTiles> Create(const float* weights, size_t outputs,
                                                 size_t inputs);

  // y = x W^T: x [rows, inputs] bfloat16 of any alignment, y [rows, outputs]. A row's bits do not
  // depend on the others; denormal values count as zero.
  void Run(const uint8_t* x, size_t rows, float* y, Scratch* scratch) const;

  size_t bytes() const { return packed_.size(); }

 private:
  GateTiles(size_t outputs, size_t inputs) : outputs_(outputs), inputs_(inputs) {}

  const size_t outputs_;
  const size_t inputs_;
  AlignedBuffer packed_;  // Constant after construction.
};

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_GATE_TILES_H_
