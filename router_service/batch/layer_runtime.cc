#include "router_service/batch/layer_runtime.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"
#include "common/gate/validate_routing.h"
#include "common/model/routing_json.h"

namespace expertmesh::batch {
namespace {

// The routing options in force for a layer of the checkpoint.
absl::StatusOr<RoutingOptions> RoutingOf(const MoeLayerDescription& layer,
                                         const std::string& changes) {
  if (changes.empty()) {
    return layer.routing;
  }
  absl::StatusOr<RoutingOptions> routing = WithRoutingJson(layer.routing, changes);
  const absl::Status status = routing.ok() ? gate::ValidateRouting(*routing) : routing.status();
  if (!status.ok()) {
    return WithContext(absl::StrCat("--routing cannot be used for layer ", layer.layer), status);
  }
  return routing;
}

}  // namespace

absl::StatusOr<LayerRuntime> LoadLayer(const checkpoint::MoeCheckpoint& checkpoint,
                                       const MoeLayerDescription& description,
                                       const LayerOptions& options, experts::Backend* backend,
                                       std::vector<float>* select_bias) {
  LayerRuntime layer;
  layer.description = description;
  RoutingOptions& routing = layer.description.routing;
  ASSIGN_OR_RETURN(routing, RoutingOf(description, options.routing));
  layer.load = std::make_unique<balance_control::LayerCounters>(routing.num_experts);
  layer.scores = std::make_unique<balance_control::ScoreSample>(routing);
  ASSIGN_OR_RETURN(const GateWeights weights, checkpoint.Gate(description.layer));
  absl::StatusOr<std::unique_ptr<const gate::Gate>> made =
      gate::Gate::Create(weights, routing, backend->compute_dtype(), options.tie_order);
  if (!made.ok()) {
    return WithContext(absl::StrCat("layer ", description.layer), made.status());
  }
  layer.gate = *std::move(made);
  absl::StatusOr<std::vector<float>> bias = gate::ReadSelectBias(weights, routing);
  if (!bias.ok()) {
    return WithContext(absl::StrCat("layer ", description.layer), bias.status());
  }
  *select_bias = *std::move(bias);
  ASSIGN_OR_RETURN(layer.shared, shared_experts::SharedExperts::Load(checkpoint, layer.description,
                                                                     weights, backend));
  RETURN_IF_ERROR(checkpoint.ConfirmRead(weights));
  return layer;
}

}  // namespace expertmesh::batch
