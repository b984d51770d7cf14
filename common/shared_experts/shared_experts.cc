#include "common/shared_experts/shared_experts.h"

#include <numeric>

#include "absl/types/span.h"
#include "common/base/status_macros.h"

namespace expertmesh::shared_experts {

size_t SharedExpertsScratch::MemoryBytes() const {
  return row_begin.capacity() * sizeof(uint32_t) + experts.capacity() * sizeof(void*) +
         weights.capacity() * sizeof(float);
}

absl::StatusOr<std::unique_ptr<const SharedExperts>> SharedExperts::Load(
    const checkpoint::MoeCheckpoint& checkpoint, const MoeLayerDescription& layer,
    const GateWeights& gate, experts::Backend* backend) {
  if (layer.shared_intermediate_size == 0) {
    return nullptr;
  }
  ASSIGN_OR_RETURN(const ExpertWeights weights, checkpoint.Shared(layer.layer));
  // A plain gated unit, whatever the routed experts are.
  ExpertOptions plain;
  plain.d_model = layer.expert.d_model;
  plain.intermediate_size = layer.shared_intermediate_size;
  std::unique_ptr<SharedExperts> shared(new SharedExperts(backend, plain.d_model));
  ASSIGN_OR_RETURN(shared->packed_, backend->Pack(plain, weights, IntermediateSlice()));
  RETURN_IF_ERROR(checkpoint.ConfirmRead(weights));
  if (layer.shared_gate) {
    ASSIGN_OR_RETURN(shared->gate_, gate::SharedGate::Create(gate.shared_gate, plain.d_model,
                                                             backend->compute_dtype()));
  }
  return shared;
}

absl::Status SharedExperts::Compute(const void* hidden_states, size_t rows,
                                    SharedExpertsScratch* scratch, float* output) const {
  scratch->row_begin.resize(rows + 1);
  std::iota(scratch->row_begin.begin(), scratch->row_begin.end(), 0);
  scratch->experts.assign(rows, packed_.get());
  scratch->weights.assign(rows, 1.0f);
  if (gate_ != nullptr) {
    gate_->Weights(hidden_states, backend_->compute_dtype(), absl::MakeSpan(scratch->weights));
  }
  experts::GroupedBatch batch;
  batch.hidden_states = hidden_states;
  batch.rows = rows;
  batch.d_model = d_model_;
  batch.row_begin = scratch->row_begin;
  batch.experts = scratch->experts;
  batch.weights = scratch->weights;
  batch.partials = output;
  return experts::Compute(*backend_, batch);
}

}  // namespace expertmesh::shared_experts
