// What the router holds of one layer: its gate and its shared experts.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_LAYER_RUNTIME_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_LAYER_RUNTIME_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/backend.h"
#include "common/gate/gate.h"
#include "common/gate/selection.h"
#include "common/model/model_description.h"
#include "common/shared_experts/shared_experts.h"
#include "router_service/balance/load_counts.h"
#include "router_service/balance/score_sample.h"

namespace expertmesh::batch {

// What all batches of one layer share. Outlives them.
struct LayerRuntime {
  // With the routing options in force.
  MoeLayerDescription description;
  std::unique_ptr<const gate::Gate> gate;
  // Null when the layer has none.
  std::unique_ptr<const shared_experts::SharedExperts> shared;
  std::unique_ptr<balance_control::LayerCounters> load;
  std::unique_ptr<balance_control::ScoreSample> scores;
};

struct LayerOptions {
  // Which of several equal scores is chosen.
  gate::TieOrder tie_order = gate::TieOrder::kLowestIndex;
  // Changes the checkpoint's routing options, see WithRoutingJson. Empty: as they are.
  std::string routing;
};

// Reads the gate and the shared experts of a layer; `backend` packs the latter and says what
// activations are computed in. `select_bias` becomes the checkpoint's selection bias, [num_experts]
// or empty.
//   INVALID_ARGUMENT  names the layer, and what cannot be used.
absl::StatusOr<LayerRuntime> LoadLayer(const checkpoint::MoeCheckpoint& checkpoint,
                                       const MoeLayerDescription& description,
                                       const LayerOptions& options, experts::Backend* backend,
                                       std::vector<float>* select_bias);

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_LAYER_RUNTIME_H_
