// The gate of one layer: hidden states in, experts and weights out.
#ifndef EXPERTMESH_ROUTER_SERVICE_GATE_GATE_H_
#define EXPERTMESH_ROUTER_SERVICE_GATE_GATE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/expert_weights.h"
#include "common/model/model_description.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/dtype.h"
#include "router_service/gate/gate_matmul.h"
#include "router_service/gate/routing.h"

namespace expertmesh {

// Working memory of one thread, for any number of gates one after the other. Grows to the largest
// batch seen; after that a call allocates no memory of its own.
struct GateScratch {
  AlignedBuffer widened;
  AlignedBuffer workspace;
  std::vector<float> logits;
  RoutingScratch routing;
};

// Immutable and thread-safe: any number of threads may call at once, each with its own scratch, and
// a call runs on its caller's thread alone.
//
// A token's logits, experts and weights depend on its own hidden state and on nothing else, bit for
// bit: not on its batch, and not on whether the same values came as float32, bfloat16 or float16.
class Gate {
 public:
  // Reads `weights` during the call only and keeps them as float32. `model_dtype` is an activation
  // type: what LogitDType::kModel and WeightDType::kModel round to; with LogitDType::kModel the
  // gate's weight is rounded to it too.
  //   INVALID_ARGUMENT    options that cannot route, or weights that do not fit them.
  //   RESOURCE_EXHAUSTED  no memory.
  static absl::StatusOr<std::unique_ptr<const Gate>> Create(const GateWeights& weights,
                                                            const RoutingOptions& options,
                                                            DType model_dtype,
                                                            TieOrder ties = TieOrder::kLowestIndex);

  // Routes `tokens` rows of `hidden_states`, [tokens, d_model] row-major of `dtype` (an activation
  // type), of any alignment.
  //   expert_ids  out, [tokens, top_k], see RouteTokens
  //   weights     out, [tokens, top_k]
  // NaN and Inf in a row reach that row's weights, and no other row.
  //   INVALID_ARGUMENT    dtype is not an activation type, or a span has the wrong size.
  //   RESOURCE_EXHAUSTED  no memory.
  absl::Status Route(const void* hidden_states, DType dtype, size_t tokens, GateScratch* scratch,
                     absl::Span<uint32_t> expert_ids, absl::Span<float> weights) const;

  // The logits alone, [tokens, num_experts], rounded as LogitDType says. Errors as Route.
  absl::Status Logits(const void* hidden_states, DType dtype, size_t tokens, GateScratch* scratch,
                      absl::Span<float> logits) const;

  const RoutingOptions& options() const { return options_; }
  size_t d_model() const { return d_model_; }
  // [num_experts], or empty.
  absl::Span<const float> select_bias() const { return select_bias_; }
  // Memory it holds, in bytes.
  size_t bytes() const { return product_->bytes() + select_bias_.size() * sizeof(float); }

 private:
  Gate(const RoutingOptions& options, size_t d_model, DType model_dtype, TieOrder ties,
       std::unique_ptr<const GateMatmul> product, std::vector<float> select_bias);

  const RoutingOptions options_;
  const size_t d_model_;
  const DType model_dtype_;
  const TieOrder ties_;
  const std::unique_ptr<const GateMatmul> product_;
  const std::vector<float> select_bias_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_ROUTER_SERVICE_GATE_GATE_H_
