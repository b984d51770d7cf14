// The gate of a layer's shared experts (Qwen2-MoE): their output is multiplied by
// sigmoid(shared gate * x).
#ifndef EXPERTMESH_COMMON_GATE_SHARED_GATE_H_
#define EXPERTMESH_COMMON_GATE_SHARED_GATE_H_

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensor/dtype.h"
#include "common/tensor/matrix_view.h"

namespace expertmesh::gate {

// Immutable and thread-safe. A token's weight depends on its own hidden state alone, bit for bit.
class SharedGate {
 public:
  // `weight`: [1, d_model], read during the call only. Weight, product and sigmoid are rounded to
  // `activation_dtype`, as by a model that computes in it.
  //   INVALID_ARGUMENT  another shape or type.
  static absl::StatusOr<std::unique_ptr<const SharedGate>> Create(const MatrixView& weight,
                                                                  size_t d_model,
                                                                  Dtype activation_dtype);

  // hidden_states: [tokens, d_model] of `dtype` (an activation type), of any alignment. `weights`:
  // out, [tokens].
  void Weights(const void* hidden_states, Dtype dtype, absl::Span<float> weights) const;

 private:
  SharedGate(std::vector<float> weight, Dtype activation_dtype)
      : weight_(std::move(weight)), activation_dtype_(activation_dtype) {}

  const std::vector<float> weight_;
  const Dtype activation_dtype_;
};

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_SHARED_GATE_H_
