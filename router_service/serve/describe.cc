#include "router_service/serve/describe.h"

#include "common/base/check.h"
#include "common/model/routing_json.h"
#include "common/wire/message_codec.h"
#include "common/wire/wire_dtype.h"

namespace expertmesh::serve {
namespace {

// As the metric's label.
const char* NameOf(mesh::LinkState state) {
  switch (state) {
    case mesh::LinkState::kDown:
      return "down";
    case mesh::LinkState::kUp:
      return "up";
    case mesh::LinkState::kRefused:
      return "refused";
    case mesh::LinkState::kDraining:
      return "draining";
    case mesh::LinkState::kEjected:
      return "ejected";
  }
  EXPERTMESH_CHECK(false);
}

}  // namespace

v1::DescribeModelResponse DescribeModel(const checkpoint::MoeCheckpoint& checkpoint,
                                        const ServedLayers& layers, Dtype activation_dtype,
                                        uint64_t max_message_bytes, bool strict) {
  const ModelDescription& model = checkpoint.model();
  v1::DescribeModelResponse response;
  response.set_family(model.family);
  response.set_fingerprint(checkpoint.fingerprint());
  response.set_outline(checkpoint.outline());
  response.set_d_model(model.d_model);
  response.set_activation_dtype(ToWire(activation_dtype));
  response.set_max_message_bytes(max_message_bytes);
  response.set_strict(strict);
  for (const auto& [index, served] : layers) {
    const MoeLayerDescription& description = served.runtime.description;
    v1::MoeLayer& layer = *response.add_layers();
    layer.set_layer(description.layer);
    layer.set_num_experts(description.routing.num_experts);
    layer.set_experts_per_token(description.routing.top_k);
    layer.set_intermediate_size(description.expert.intermediate_size);
    layer.set_shared_intermediate_size(description.shared_intermediate_size);
    layer.set_routing(RoutingJson(description.routing));
  }
  return response;
}

void SetMeshMetrics(const mesh::MeshSummary& mesh, metrics::RouterMetrics* metrics) {
  metrics->epoch.Set(static_cast<double>(mesh.epoch));
  metrics->missing_experts.Set(static_cast<double>(mesh.missing_experts));
  metrics->node_lookup_fails.Set(mesh.lookup_fails ? 1 : 0);
  for (const auto& [state, count] : mesh.nodes) {
    metrics->nodes.Add({{"state", NameOf(state)}}).Set(static_cast<double>(count));
  }
}

}  // namespace expertmesh::serve
