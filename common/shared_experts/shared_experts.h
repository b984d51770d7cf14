// The shared experts of a layer: every token goes through them, and they need no node.
#ifndef EXPERTMESH_COMMON_SHARED_EXPERTS_SHARED_EXPERTS_H_
#define EXPERTMESH_COMMON_SHARED_EXPERTS_SHARED_EXPERTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/backend.h"
#include "common/gate/shared_gate.h"
#include "common/model/expert_weights.h"
#include "common/model/model_description.h"

namespace expertmesh::shared_experts {

// Working memory of one call at a time, of any layer. Grows to the largest batch seen.
struct SharedExpertsScratch {
  std::vector<uint32_t> row_begin;
  std::vector<const experts::PackedExpert*> experts;
  std::vector<float> weights;

  size_t MemoryBytes() const;
};

// Immutable and thread-safe. A row's output depends on itself alone, bit for bit.
class SharedExperts {
 public:
  // Null when the layer has none. Reads the weights during the call only, those of the shared
  // experts' gate from `gate`; `backend` packs the others, computes, and must outlive the result.
  //   INVALID_ARGUMENT  weights that do not fit the layer.
  static absl::StatusOr<std::unique_ptr<const SharedExperts>> Load(
      const checkpoint::MoeCheckpoint& checkpoint, const MoeLayerDescription& layer,
      const GateWeights& gate, experts::Backend* backend);

  // weights[r]: what the output for row r is multiplied by, the sigmoid of their gate if they have
  // one, else 1. `hidden_states`: as for Compute, [weights.size(), d_model].
  void Weights(const void* hidden_states, absl::Span<float> weights) const;

  // output = shared experts(hidden_states), times Weights.
  //   hidden_states  [rows, d_model] of the backend's compute type, see GroupedBatch
  //   output         [rows, d_model] float32, overwritten
  absl::Status Compute(const void* hidden_states, size_t rows, SharedExpertsScratch* scratch,
                       float* output) const;

  // The same bits for some of the rows: output[i] = weights[i] * shared experts(row rows[i]).
  //   output  [rows.size(), d_model] float32, overwritten
  absl::Status ComputeRows(const void* hidden_states, absl::Span<const uint32_t> rows,
                           absl::Span<const float> weights, SharedExpertsScratch* scratch,
                           float* output) const;

 private:
  SharedExperts(experts::Backend* backend, size_t d_model) : backend_(backend), d_model_(d_model) {}
  // One assignment for each row, with the weights of `scratch`.
  absl::Status Submit(const void* hidden_states, size_t rows,
                      absl::Span<const uint32_t> hidden_row_of, SharedExpertsScratch* scratch,
                      float* output) const;

  experts::Backend* const backend_;
  const size_t d_model_;
  // Set by Load and constant from then on.
  std::shared_ptr<const experts::PackedExpert> packed_;
  std::unique_ptr<const gate::SharedGate> gate_;  // Null when they have none.
};

}  // namespace expertmesh::shared_experts

#endif  // EXPERTMESH_COMMON_SHARED_EXPERTS_SHARED_EXPERTS_H_
