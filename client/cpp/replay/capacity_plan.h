// How many nodes a model needs, and what more of them would give.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_CAPACITY_PLAN_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_CAPACITY_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/replay/mesh_model.h"
#include "common/balance/placement_planner.h"
#include "common/balance/routing_record.h"

namespace expertmesh::replay {

struct CapacityQuestion {
  std::vector<balance::RecordedLayer> layers;
  // Bytes of one expert on a node, and chance that a token takes each expert: [layers], and
  // [layers][num_experts].
  std::vector<uint64_t> expert_bytes;
  std::vector<std::vector<double>> chances;
  uint64_t node_memory_bytes = 0;
  // Nodes are alike, or have these speeds in turns.
  std::vector<double> speeds = {1};
  ServiceTimes times;
  double batch_tokens = 256;
  // min_copies and max_copies count, the rest as PlanPlacement does by itself.
  balance::PlannerOptions planner;
};

// A mesh of some size.
struct CapacityAnswer {
  uint32_t nodes = 0;
  // All experts fit, as often as they must be there. The rest is 0 otherwise, and `reason` says
  // why.
  bool fits = false;
  std::string reason;
  // Experts of a mean layer that all nodes have room for beyond the copies that must be there.
  double spare_copies = 0;
  // Copies that the planner uses, and the bytes of the node with most of them.
  uint64_t copies = 0;
  uint64_t node_bytes = 0;
  // Fullest node over the mean: mean over layers, the worst layer, and what no placement is below.
  double fullest = 0;
  double fullest_worst = 0;
  double lower_bound = 0;
  // Tokens of the whole model in a second when the busiest node computes all the time, and the time
  // of one batch through all layers, half of all batches being faster.
  double tokens_per_second = 0;
  double batch_us = 0;
};

// Places the model on `nodes` nodes, from none, as the planner does.
//   INVALID_ARGUMENT  the question cannot be: no nodes or more than kMaxSimulatedNodes, no memory,
//                     negative loads.
absl::StatusOr<CapacityAnswer> PlanCapacity(const CapacityQuestion& question, uint32_t nodes);

// The fewest nodes on which everything fits. RESOURCE_EXHAUSTED when kMaxSimulatedNodes are not
// enough, or no expert fits on a node.
absl::StatusOr<uint32_t> FewestNodes(const CapacityQuestion& question);

// Nodes, from `fewest` on, which FewestNodes gave, whose tokens_per_second reach `target` while one
// node less does not. RESOURCE_EXHAUSTED when kMaxSimulatedNodes do not.
absl::StatusOr<uint32_t> NodesForSpeed(const CapacityQuestion& question, uint32_t fewest,
                                       double target);

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_CAPACITY_PLAN_H_
