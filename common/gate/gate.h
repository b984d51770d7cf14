// The gate of one layer: hidden states in, experts and weights out.
#ifndef EXPERTMESH_COMMON_GATE_GATE_H_
#define EXPERTMESH_COMMON_GATE_GATE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/thread_pool.h"
#include "common/gate/gate_matmul.h"
#include "common/gate/routing.h"
#include "common/model/expert_weights.h"
#include "common/model/model_description.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/dtype.h"

namespace expertmesh::gate {

// Working memory of one call at a time, for any number of gates one after the other. Grows to the
// largest batch seen; after that a call allocates no memory of its own.
struct GateScratch {
  // What each thread that multiplies needs.
  struct Block {
    GateMatmulScratch product;
    AlignedBuffer widened;
  };
  std::vector<Block> blocks;
  std::vector<float> logits;
  std::vector<float> noise_width;
  RoutingScratch routing;

  size_t MemoryBytes() const;
};

// The checkpoint's selection bias, [num_experts]; empty when `options` have none.
//   INVALID_ARGUMENT  it is missing or has another shape, or a value is NaN.
absl::StatusOr<std::vector<float>> ReadSelectBias(const GateWeights& weights,
                                                  const RoutingOptions& options);

// Immutable and thread-safe: any number of threads may call at once, each with its own scratch. A
// call runs on its caller's thread, and the product of many rows on idle threads of a pool as well
// if there is one; bits do not depend on that.
//
// A request's logits, experts and weights depend on itself and on nothing else, bit for bit: not on
// its batch, and not on whether the same values came as float32, bfloat16 or float16. A token's
// depend on its own hidden state alone, where options.looks_at_groups() does not say otherwise.
class Gate {
 public:
  // Reads `weights` (all but shared_gate, see SharedGate, and the selection bias, which is an
  // argument of Route) during the call only and keeps them as float32. `activation_dtype` is what
  // the model is computed in, which need not be what its weights are stored as: kModel of
  // LogitDtype, ScoreDtype and WeightDtype rounds to it, and with LogitDtype::kModel so are the
  // gate's own weights. `random` must outlive the gate.
  //   INVALID_ARGUMENT  options that cannot route, or weights that do not fit them.
  static absl::StatusOr<std::unique_ptr<const Gate>> Create(
      const GateWeights& weights, const RoutingOptions& options, Dtype activation_dtype,
      TieOrder ties = TieOrder::kLowestIndex, const RandomSource& random = CounterRandom());

  // Routes the rows of `hidden_states`, [tokens, d_model] row-major of `dtype` (an activation
  // type), of any alignment; `tokens` is the sum over `requests`, whose rows follow each other.
  // `select_bias`: without NaN; the checkpoint's is read only when options.select_bias, a live one
  // only with Choice::kTopK. Overwrites `routed`. NaN and Inf in a row reach that row's weights,
  // and no other request.
  //   INVALID_ARGUMENT  dtype is not an activation type, select_bias has another size, or a request
  //                     does not fit, see CheckRequestTokens.
  absl::Status Route(const void* hidden_states, Dtype dtype,
                     absl::Span<const RequestTokens> requests, const SelectBias& select_bias,
                     GateScratch* scratch, RoutedTokens* routed, ThreadPool* pool = nullptr) const;

  // The logits alone, [tokens, num_experts], rounded as LogitDtype says, before temperature and
  // noise. Errors as Route.
  absl::Status Logits(const void* hidden_states, Dtype dtype, size_t tokens,
                      absl::Span<float> logits, ThreadPool* pool = nullptr) const;

  const RoutingOptions& options() const { return rules_.options; }
  size_t d_model() const { return d_model_; }
  // Memory it holds, in bytes.
  size_t bytes() const;

 private:
  // What a gate keeps of GateWeights.
  struct Parameters {
    std::unique_ptr<const GateMatmul> product;
    std::unique_ptr<const GateMatmul> noise;  // Noise::kLearnedNormal only.
    std::vector<float> logit_bias;
  };

  Gate(const RoutingRules& rules, size_t d_model, Parameters parameters);

  // Rows to multiply.
  struct Rows {
    const void* values = nullptr;
    Dtype dtype = Dtype::kF32;
    size_t count = 0;
    // Requests whose rows are multiplied by noise first; empty: none.
    absl::Span<const RequestTokens> jittered = {};
  };

  // outputs = rows * weights^T + bias, rounded as LogitDtype says.
  void Multiply(const GateMatmul& product, absl::Span<const float> bias, const Rows& rows,
                std::vector<GateScratch::Block>* blocks, ThreadPool* pool,
                absl::Span<float> outputs) const;
  // The same of the rows [first, first + count) only.
  void MultiplyBlock(const GateMatmul& product, absl::Span<const float> bias, const Rows& rows,
                     size_t first, size_t count, GateScratch::Block* scratch,
                     absl::Span<float> outputs) const;

  const RoutingRules rules_;
  const size_t d_model_;
  const Parameters parameters_;
};

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_GATE_H_
