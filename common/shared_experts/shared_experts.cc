#include "common/shared_experts/shared_experts.h"

#include <algorithm>
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
  const ExpertOptions plain = layer.shared_expert();
  std::unique_ptr<SharedExperts> shared(new SharedExperts(backend, plain.d_model));
  ASSIGN_OR_RETURN(shared->packed_, backend->Pack(plain, weights, IntermediateSlice()));
  RETURN_IF_ERROR(checkpoint.ConfirmRead(weights));
  if (layer.shared_gate) {
    ASSIGN_OR_RETURN(shared->gate_, gate::SharedGate::Create(gate.shared_gate, plain.d_model,
                                                             backend->compute_dtype()));
  }
  return shared;
}

void SharedExperts::Weights(const void* hidden_states, absl::Span<float> weights) const {
  if (gate_ != nullptr) {
    gate_->Weights(hidden_states, backend_->compute_dtype(), weights);
  } else {
    std::fill(weights.begin(), weights.end(), 1.0f);
  }
}

absl::Status SharedExperts::Compute(const void* hidden_states, size_t rows,
                                    SharedExpertsScratch* scratch, float* output) const {
  scratch->weights.resize(rows);
  Weights(hidden_states, absl::MakeSpan(scratch->weights));
  return Submit(hidden_states, rows, {}, scratch, output);
}

absl::Status SharedExperts::ComputeRows(const void* hidden_states, absl::Span<const uint32_t> rows,
                                        absl::Span<const float> weights,
                                        SharedExpertsScratch* scratch, float* output) const {
  scratch->weights.assign(weights.begin(), weights.end());
  return Submit(hidden_states, rows.size(), rows, scratch, output);
}

absl::Status SharedExperts::Submit(const void* hidden_states, size_t rows,
                                   absl::Span<const uint32_t> hidden_row_of,
                                   SharedExpertsScratch* scratch, float* output) const {
  scratch->row_begin.resize(rows + 1);
  std::iota(scratch->row_begin.begin(), scratch->row_begin.end(), 0);
  scratch->experts.assign(rows, packed_.get());
  experts::GroupedBatch batch;
  batch.hidden_states = hidden_states;
  batch.rows = rows;
  batch.d_model = d_model_;
  batch.row_begin = scratch->row_begin;
  batch.experts = scratch->experts;
  batch.weights = scratch->weights;
  batch.partials = output;
  batch.hidden_row_of = hidden_row_of;
  return experts::Compute(*backend_, batch);
}

}  // namespace expertmesh::shared_experts
