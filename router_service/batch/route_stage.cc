#include "router_service/batch/route_stage.h"

#include "common/base/status_macros.h"

namespace expertmesh::batch {

absl::Status RouteStage::Run(Batch* batch) {
  const BatchEnvironment& environment = *batch->environment;
  const LayerRuntime& layer = *batch->layer;
  requests_.clear();
  for (const ForwardJobPtr& job : batch->requests.jobs()) {
    requests_.push_back(job->tokens(layer.description.routing.seed));
  }
  RETURN_IF_ERROR(layer.gate->Route(batch->hidden_states->data(), environment.activation_dtype,
                                    requests_, batch->view->SelectBias(batch->layer_index()),
                                    &scratch_, &batch->routed, environment.pool));
  layer.load->Add(batch->routed, &counts_);
  layer.scores->Add(scratch_.logits, batch->routed);
  environment.metrics->dropped_assignments.Increment(
      static_cast<double>(batch->routed.dropped.size()));
  environment.metrics->dropped_gate_mass.Increment(batch->routed.dropped_mass);
  return absl::OkStatus();
}

size_t RouteStage::MemoryBytes() const {
  return requests_.capacity() * sizeof(gate::RequestTokens) +
         counts_.capacity() * sizeof(uint32_t) + scratch_.MemoryBytes();
}

}  // namespace expertmesh::batch
