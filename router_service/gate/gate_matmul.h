// The gate's matrix product, with weights packed once: by oneDNN, and on AMX tiles where the values
// are bfloat16.
#ifndef EXPERTMESH_ROUTER_SERVICE_GATE_GATE_MATMUL_H_
#define EXPERTMESH_ROUTER_SERVICE_GATE_GATE_MATMUL_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace expertmesh {

// Working memory of one thread for any number of products: what oneDNN wants made for each shape,
// kept, so that a product of a shape seen before allocates nothing here.
class GateMatmulScratch {
 public:
  GateMatmulScratch();
  ~GateMatmulScratch();
  GateMatmulScratch(GateMatmulScratch&&) noexcept;
  GateMatmulScratch& operator=(GateMatmulScratch&&) noexcept;

 private:
  friend class GateMatmul;
  struct Kept;
  Kept& Get();
  std::unique_ptr<Kept> kept_;  // Made by the first product.
};

// y = x W^T, summed in float32, with W [outputs, inputs] and x [rows, inputs]. Runs on the calling
// thread alone. Immutable and thread-safe with a scratch per thread.
//
// A row's bits do not depend on `rows`, on the other rows or on the type it came in. A row of
// bfloat16 values goes to tiles where all weights are bfloat16 values too: its terms are exact in
// either way, and tiles take a quarter to a tenth of the time (routing_benchmark). oneDNN 2.6 has
// no bfloat16 product to take instead: for AMX it cuts the sum differently for different row
// counts, and without AMX it is slower than float32 from a few dozen rows on.
class GateMatmul {
 public:
  // Rows multiplied at once; more are cut into blocks.
  static constexpr size_t kMaxBlock = 64;

  // Packs `weights`, [outputs, inputs] row-major, read during the call only.
  //   UNIMPLEMENTED       oneDNN has no such product for this CPU.
  //   RESOURCE_EXHAUSTED  no memory.
  static absl::StatusOr<std::unique_ptr<const GateMatmul>> Create(const float* weights,
                                                                  size_t outputs, size_t inputs);
  ~GateMatmul();
  GateMatmul(const GateMatmul&) = delete;
  GateMatmul& operator=(const GateMatmul&) = delete;

  // x: [rows, inputs], y: [rows, outputs]. Errors as Create.
  absl::Status Run(const float* x, size_t rows, float* y, GateMatmulScratch* scratch) const;

  // True where rows that are bfloat16 need not be widened.
  bool TakesBF16() const;
  // The same with `x` in bfloat16, of any alignment. Only where TakesBF16().
  void RunBF16(const uint8_t* x, size_t rows, float* y, GateMatmulScratch* scratch) const;

  // Memory of the packed weights.
  size_t bytes() const;

 private:
  struct Kernels;

  explicit GateMatmul(std::unique_ptr<const Kernels> kernels);

  absl::Status RunFloats(const float* x, size_t rows, float* y, GateMatmulScratch* scratch) const;
  absl::Status RunBlock(const float* x, size_t rows, float* y, GateMatmulScratch* scratch) const;

  const std::unique_ptr<const Kernels> kernels_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_ROUTER_SERVICE_GATE_GATE_MATMUL_H_
