#include "router_service/batch/gather_stage.h"

#include "common/wire/tensor_copy.h"

namespace expertmesh::batch {

void GatherRows(Batch* batch) {
  const BatchEnvironment& environment = *batch->environment;
  const BatchRequests& requests = batch->requests;
  const size_t row_bytes = environment.row_bytes();
  batch->hidden_states = environment.buffers->Take(requests.rows() * row_bytes);
  uint64_t nonfinite = 0;
  for (size_t i = 0; i < requests.jobs().size(); ++i) {
    const ForwardJob& job = *requests.jobs()[i];
    environment.metrics->queue_seconds.Observe(batch->times.closed - job.arrival());
    nonfinite += CopyRows(job.hidden_states(), environment.activation_dtype,
                          batch->hidden_states->data() + requests.first_row(i) * row_bytes);
  }
  environment.metrics->nonfinite_tokens.Increment(static_cast<double>(nonfinite));
  environment.metrics->batch_requests.Observe(static_cast<double>(requests.jobs().size()));
  environment.metrics->batch_tokens.Observe(requests.rows());
}

}  // namespace expertmesh::batch
