// Projections y = x W^T + b with packed weights: what a decoder multiplies by outside its experts,
// by the same products, hence with the same promise: a row's bits do not depend on the rows beside
// it.
#ifndef EXPERTMESH_COMMON_EXPERTS_LINEAR_H_
#define EXPERTMESH_COMMON_EXPERTS_LINEAR_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensor/dtype.h"
#include "common/tensor/matrix_view.h"

namespace expertmesh::experts {

// One matrix or several with the same inputs, one below the other, packed. Immutable.
class Linear {
 public:
  struct Part {
    MatrixView weight;     // [outputs, inputs], of any type a weight can have.
    MatrixView bias = {};  // [1, outputs] or empty.
  };

  // `compute_dtype` is kF32 or kBF16; reads `parts` during the call only.
  //   INVALID_ARGUMENT    no parts, or shapes or types that do not fit.
  //   RESOURCE_EXHAUSTED  no memory.
  static absl::StatusOr<std::unique_ptr<const Linear>> Pack(Dtype compute_dtype,
                                                            absl::Span<const Part> parts);
  ~Linear();

  size_t inputs() const { return inputs_; }
  // All parts together.
  size_t outputs() const { return outputs_; }

 private:
  friend class LinearTeam;
  struct Packed;
  Linear() = default;

  size_t inputs_ = 0;
  size_t outputs_ = 0;
  std::vector<float> bias_;  // [outputs] or empty.
  std::unique_ptr<Packed> packed_;
};

// Threads that multiply, and what they keep between products. One call at a time.
class LinearTeam {
 public:
  // `threads` counts the caller; 0: one per available core.
  explicit LinearTeam(int threads);
  ~LinearTeam();

  // y [rows, outputs] = x [rows, inputs] times `linear`.
  void Multiply(const Linear& linear, size_t rows, const float* x, float* y);

  // run(i) for i < tasks, on all threads; `cost` is about how many multiplications that is: little
  // work is not worth waking another thread.
  void ForEach(size_t tasks, size_t cost, absl::FunctionRef<void(size_t task)> run);

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_LINEAR_H_
