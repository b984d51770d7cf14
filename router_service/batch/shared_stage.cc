#include "router_service/batch/shared_stage.h"

namespace expertmesh::batch {

absl::Status SharedStage::Run(const Batch& batch) {
  const BatchEnvironment& environment = *batch.environment;
  const uint32_t rows = batch.requests.rows();
  output_ = environment.buffers->Take(size_t{rows} * environment.d_model * sizeof(float));
  return batch.layer->shared->Compute(batch.hidden_states->data(), rows, &scratch_,
                                      output_->as<float>());
}

}  // namespace expertmesh::batch
