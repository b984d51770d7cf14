// The gate's matrix product, with weights packed once: in one fixed order of sums, and on AMX tiles
// where the values are bfloat16.
#ifndef EXPERTMESH_COMMON_GATE_GATE_MATMUL_H_
#define EXPERTMESH_COMMON_GATE_GATE_MATMUL_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "common/gate/gate_tiles.h"
#include "common/tensor/aligned_buffer.h"

namespace expertmesh::gate {

// Working memory of one thread for any number of products. Grows to the largest one seen; after
// that a product allocates nothing.
struct GateMatmulScratch {
  AlignedBuffer padded;    // Outputs of panels, where the last one is not full.
  AlignedBuffer narrowed;  // Rows for tiles.
  GateTiles::Scratch tiles;
};

// y = x W^T, summed in float32, with W [outputs, inputs] and x [rows, inputs]. Runs on the calling
// thread alone. Immutable and thread-safe with a scratch per thread.
//
// A row's bits do not depend on `rows`, on the other rows or on the type it came in. A row of
// bfloat16 values goes to tiles where all weights are bfloat16 values too: its terms are exact in
// either way, and tiles take a quarter to a tenth of the time (routing_benchmark).
class GateMatmul {
 public:
  // Packs `weights`, [outputs, inputs] row-major, read during the call only. Both sizes are at
  // least 1.
  static std::unique_ptr<const GateMatmul> Create(const float* weights, size_t outputs,
                                                  size_t inputs);
  GateMatmul(const GateMatmul&) = delete;
  GateMatmul& operator=(const GateMatmul&) = delete;

  // x: [rows, inputs], y: [rows, outputs].
  void Run(const float* x, size_t rows, float* y, GateMatmulScratch* scratch) const;

  // True where rows that are bfloat16 need not be widened.
  bool TakesBF16() const { return tiles_ != nullptr; }
  // The same with `x` in bfloat16, of any alignment. Only where TakesBF16().
  void RunBF16(const uint8_t* x, size_t rows, float* y, GateMatmulScratch* scratch) const;

  // Memory of the packed weights.
  size_t bytes() const;

 private:
  GateMatmul(size_t outputs, size_t inputs) : outputs_(outputs), inputs_(inputs) {}

  void RunPanels(const float* x, size_t rows, float* y, GateMatmulScratch* scratch) const;

  const size_t outputs_;
  const size_t inputs_;
  // Constant after Create.
  AlignedBuffer panels_;
  std::unique_ptr<const GateTiles> tiles_;  // Null where they cannot be used.
};

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_GATE_MATMUL_H_
