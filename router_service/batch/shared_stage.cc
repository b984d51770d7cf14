#include "router_service/batch/shared_stage.h"

#include <numeric>

#include "absl/types/span.h"

namespace expertmesh::batch {

absl::Status SharedStage::Run(const Batch& batch) {
  const BatchEnvironment& environment = *batch.environment;
  const LayerRuntime& layer = *batch.layer;
  const uint32_t rows = batch.requests.rows();
  output_ = environment.buffers->Take(size_t{rows} * environment.d_model * sizeof(float));
  row_begin_.resize(rows + 1);
  std::iota(row_begin_.begin(), row_begin_.end(), 0);
  experts_.assign(rows, layer.shared_expert.get());
  weights_.assign(rows, 1.0f);
  if (layer.shared_gate != nullptr) {
    layer.shared_gate->Weights(batch.hidden_states->data(), environment.activation_dtype,
                               absl::MakeSpan(weights_));
  }
  experts::GroupedBatch grouped;
  grouped.hidden_states = batch.hidden_states->data();
  grouped.rows = rows;
  grouped.d_model = environment.d_model;
  grouped.row_begin = row_begin_;
  grouped.experts = experts_;
  grouped.weights = weights_;
  grouped.partials = output_->as<float>();
  return experts::Compute(*environment.backend, grouped);
}

size_t SharedStage::MemoryBytes() const {
  return row_begin_.capacity() * sizeof(uint32_t) + experts_.capacity() * sizeof(void*) +
         weights_.capacity() * sizeof(float);
}

}  // namespace expertmesh::batch
