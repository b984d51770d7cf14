// What the planner is asked, from what the mesh is now.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_PLANNING_INPUT_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_PLANNING_INPUT_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "common/balance/placement_planner.h"
#include "expertmesh/v1/control.pb.h"
#include "router_service/balance/load_counts.h"
#include "router_service/balance/placement_policy.h"
#include "router_service/balance/steered_model.h"
#include "router_service/moves/placement_mover.h"

namespace expertmesh::balance_control {

// What is asked, and with which options.
struct PlanningQuestion {
  balance::PlanningInput input;
  balance::PlannerOptions options;
};

// Nodes that drain, which may be for a restart or for good.
enum class DrainingNodes {
  // They keep the copies that routers follow (without a plan: all), and get none.
  kKeepCopies,
  // They are planned without, and so emptied.
  kLeaveOut,
};

// Which node is unusable for so short a time that a plan is better made later, and what it does;
// empty: none.
std::string AwaitedNode(const v1::Topology& topology);

// `loads`: counted of late; layers with fewer than policy.min_tokens are left out, and so is the
// room that they take. Nodes that are neither up nor draining are left out, and keep nothing.
// Speeds and link costs are what this router has measured of each node. A node without a limit of
// memory gets no more than it holds now. `present`: the plan in force, or null. Without
// policy.min_copies, redundancy stays as it is, as far as policy.max_copies lets it.
//   UNAVAILABLE  no node is up, or no layer has enough tokens: says what it waits for.
absl::StatusOr<PlanningQuestion> MakePlanningQuestion(
    const SteeredModel& model, const v1::Topology& topology, const LoadCounts& loads,
    const balance::PlacementPlan* present, const PlacementPolicy& policy, DrainingNodes draining);

// Bytes that `nodes` are told to load in a second at most; 0: no bound, as fast as they can.
double LoadRate(const moves::MoverOptions& options, size_t nodes);

// Layers of `present` (may be null) that `plan` does not have join it: what was not planned stays.
balance::PlacementPlan WithUnplannedLayers(balance::PlacementPlan plan,
                                           const balance::PlacementPlan* present);

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_PLANNING_INPUT_H_
