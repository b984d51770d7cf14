// Which node is to hold which expert, from loads, nodes and what they hold now.
//
// What is minimised is the expected fullest node of each layer: a layer's batch is done when its
// last node is. Then come the bytes that have to be loaded: what nodes hold is used before anything
// is loaded, and a copy is loaded only for a lower fullest node. The load of an expert with several
// copies is divided between them unequally, in whatever shares level the nodes.
//
// Pure functions of their arguments: no threads, no clock; the same input makes the same plan.
#ifndef EXPERTMESH_COMMON_BALANCE_PLACEMENT_PLANNER_H_
#define EXPERTMESH_COMMON_BALANCE_PLACEMENT_PLANNER_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/balance/placement_plan.h"

namespace expertmesh::balance {

struct LayerToPlan {
  // Index of the layer in the model.
  uint32_t layer = 0;
  // Bytes of one expert on a node.
  uint64_t expert_bytes = 0;
  // [num_experts] Expected assignments, in any unit. When all are 0, experts count alike.
  std::vector<double> loads;
};

struct HeldExperts {
  uint32_t layer = 0;
  // Each once.
  std::vector<uint32_t> experts;
};

struct NodeToPlan {
  std::string node_id;
  // Nodes of one zone fail together.
  std::string zone;
  uint64_t capacity_bytes = 0;
  // Most experts of a layer; 0: as many as the capacity allows.
  uint32_t slots_per_layer = 0;
  // Assignments it does in a unit of time, as measured; the unit is the same for all nodes.
  double speed = 1;
  // Time that its link adds to each assignment, in the same unit.
  double link_cost = 0;
  // False: it keeps what it holds, or less, and gets nothing new, as while it drains. Its copies
  // serve and count as those of other nodes do, whatever its capacity. A node that is to be
  // emptied, or whose copies are not to be counted on, is left out.
  bool accepts_copies = true;
  // What it holds now. Each layer at most once.
  std::vector<HeldExperts> held;
};

struct PlanningInput {
  // Each layer once, in any order.
  std::vector<LayerToPlan> layers;
  std::vector<NodeToPlan> nodes;
  // The plan in force. Copies that are not held, and nodes that are not in `nodes`, are gone. A
  // layer without a plan is one whose copies have equal shares.
  PlacementPlan present;
};

struct PlannerOptions {
  // Copies of every expert, on different nodes.
  uint32_t min_copies = 1;
  // Most copies of an expert; 0: as many as there are nodes.
  uint32_t max_copies = 0;
  // The copies that every expert must have are in different zones, as far as there are zones with
  // nodes that accept copies.
  bool spread_zones = true;
  // A layer keeps its present plan unless its fullest node improves by more than this share; with
  // 1, unless an expert has not the copies it must have.
  double hysteresis = 0;
  // How far above its lower bound, as a share of it, a fullest node is good enough.
  double tolerance = 0.001;
  // Most bytes to load. With fewer than the best plan needs, they go where they gain most, and the
  // plan takes some five times as long.
  std::optional<uint64_t> byte_budget;
  // Bytes that the mesh loads in a second; 0: not known.
  double bytes_per_second = 0;
  // Most seconds of loading; needs bytes_per_second.
  std::optional<double> seconds_budget;
};

// Levels are the time that a node needs for its share of the layer: assignments by speed.
struct LayerForecast {
  uint32_t layer = 0;
  // All assignments over the speed of all nodes.
  double mean = 0;
  // Position in PlacementPlan::nodes, and its level under the new plan.
  uint32_t fullest_node = 0;
  double fullest = 0;
  // No plan has a lower fullest node.
  double lower_bound = 0;
  // Under the present plan; infinite where that leaves an expert without the copies it must have.
  double present_fullest = std::numeric_limits<double>::infinity();
  // The plan differs from the present one.
  bool changed = false;

  double FullestOverMean() const { return mean > 0 ? fullest / mean : 1; }
  // By how much the fullest node might be lower at most, as a share of the bound.
  double Gap() const { return lower_bound > 0 ? (fullest / lower_bound) - 1 : 0; }
};

// A copy that is loaded, moved, or freed.
struct CopyMove {
  static constexpr uint32_t kNoNode = ~uint32_t{0};

  // Position in PlanningInput::layers.
  uint32_t layer_position = 0;
  uint32_t expert = 0;
  // Positions in PlacementPlan::nodes. Only `to`: loaded; only `from`: freed; both: moved.
  uint32_t from = kNoNode;
  uint32_t to = kNoNode;
  // What its expert has of the layer's load, and what the copy on `to` takes of that, 0 to 1.
  float expert_share = 0;
  float copy_share = 0;
  // Copies of the expert under the new plan; on `to`, this is the copy_number-th.
  uint32_t copies = 0;
  uint32_t copy_number = 0;
};

enum class PlanDecision { kApply, kKeep };

struct PlanningResult {
  // Its nodes are PlanningInput::nodes. Layers ascending.
  PlacementPlan plan;
  // kKeep: nothing is to be done, and `plan` is the present one; copies that nodes hold beside it
  // have a share of 0.
  PlanDecision decision = PlanDecision::kKeep;
  // Why, in words.
  std::string reason;
  // As PlanningInput::layers.
  std::vector<LayerForecast> layers;
  std::vector<CopyMove> moves;
  uint64_t bytes_loaded = 0;
  uint64_t bytes_freed = 0;
  // What loading takes; 0 when bytes_per_second is not known.
  double load_seconds = 0;
};

// INVALID_ARGUMENT for input that cannot be: a load that is negative or not a number, a node_id
// that comes twice, a layer or expert that is not there. RESOURCE_EXHAUSTED when nodes have no room
// for all experts, or a budget is too small for the copies that must be there. Each names the
// field, its value and the remedy.
//
// What holds for every plan, whatever nodes hold: no node has two copies of an expert, no node that
// accepts copies more bytes than its capacity, every expert has min_copies to max_copies, on nodes
// of as many zones as accept copies up to min_copies.
absl::StatusOr<PlanningResult> PlanPlacement(const PlanningInput& input,
                                             const PlannerOptions& options = {});

// One move in words, such as "expert 7 of layer 3: 4.1 % of its layer's load; copy 2 of 2, on
// node-5, takes 0.48 of it; fullest node 1.31 -> 1.02 of the mean". `result` is what `input` made.
std::string Explain(const PlanningInput& input, const PlanningResult& result, const CopyMove& move);

// Nodes of `plan` hold its copies; others hold nothing.
void HoldCopiesOf(const PlacementPlan& plan, std::vector<NodeToPlan>* nodes);

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_PLACEMENT_PLANNER_H_
