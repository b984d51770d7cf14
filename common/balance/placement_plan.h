// Which node is to hold which expert, and how much of its load: what the planner makes and routers
// follow. Plain data.
#ifndef EXPERTMESH_COMMON_BALANCE_PLACEMENT_PLAN_H_
#define EXPERTMESH_COMMON_BALANCE_PLACEMENT_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

namespace expertmesh::balance {

// One copy of an expert.
struct ExpertCopy {
  // Position in PlacementPlan::nodes.
  uint32_t node = 0;
  // Part of the expert's assignments; the shares of all its copies add up to 1.
  float share = 1.0f;

  friend bool operator==(const ExpertCopy&, const ExpertCopy&) = default;
};

// Copies of the experts of one layer.
struct LayerPlacement {
  // Index of the layer in the model.
  uint32_t layer = 0;
  // [num_experts] Each at least one copy, by node, ascending: a node holds an expert once.
  std::vector<std::vector<ExpertCopy>> experts;

  friend bool operator==(const LayerPlacement&, const LayerPlacement&) = default;
};

struct PlacementPlan {
  // node_id of every node that the plan knows, each once.
  std::vector<std::string> nodes;
  // Ascending by layer.
  std::vector<LayerPlacement> layers;

  friend bool operator==(const PlacementPlan&, const PlacementPlan&) = default;
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_PLACEMENT_PLAN_H_
