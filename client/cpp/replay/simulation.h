// Runs a load through the balancing and planning code of the mesh (common/balance), on nodes that
// are simulated: several policies side by side, which all get the same load.
//
// Time goes by in intervals. At the beginning of each, nodes fail and join, and a layer whose new
// copies are all there switches to them. Then the load of the interval is divided over the copies
// by their shares. Its counts move the bias (as many steps as its tokens make, but at most
// max_bias_steps), and when a plan is due, they go to the planner; the copies that it asks for are
// loaded one after the other on each node. A plan is due every plan_interval_s, when the last one
// is in place, and after a failure. What was loaded for a plan that a failure ended is not used.
//
// Queues are not simulated: latencies are those of a mesh that is not overloaded, and `busy` tells
// whether it would be.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_SIMULATION_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_SIMULATION_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/replay/load_source.h"
#include "client/cpp/replay/mesh_model.h"
#include "common/balance/bias_policy.h"
#include "common/balance/placement_planner.h"
#include "common/base/clock.h"

namespace expertmesh::replay {

struct Policy {
  std::string name;
  // Whether the placement follows the load.
  bool plans = false;
  double plan_interval_s = 60;
  balance::PlannerOptions planner;
  // kFrozen: no bias. Other rules need a load with scores.
  balance::BiasPolicy bias;
};

struct SimulationOptions {
  // Threads that compute; the result does not depend on it.
  int threads = 1;
  // Bias steps of a layer in one interval; a step has more tokens instead.
  uint32_t max_bias_steps = 16;
  // What PolicyResult::planning_s is measured by.
  const Clock* clock = Clock::Real();
};

// One policy in one interval.
struct IntervalFigures {
  double start_s = 0;
  double tokens = 0;
  uint32_t nodes = 0;
  // Fullest node over the mean of all, by layer: mean over layers, and the worst.
  double fullest = 1;
  double fullest_worst = 1;
  // MaxVio of experts, mean over layers: of all of the interval, and of one batch.
  double max_violation = 0;
  double max_violation_batch = 0;
  // Share of tokens that a bias sent to other experts: mean over layers, and the worst.
  double changed = 0;
  double changed_worst = 0;
  // Share of assignments whose expert no node had.
  double lost = 0;
  // Time of one layer's batch.
  double p50_us = 0;
  double p99_us = 0;
  // Busy time of the busiest node by time; above 1 it does not keep up.
  double busy = 0;
  // Copies that the plan of this interval had loaded, and their bytes.
  uint64_t moves = 0;
  uint64_t bytes = 0;
  // Copies that are in use.
  uint64_t copies = 0;
  // What the planner says of its last plan: no placement has a lower fullest node. 0: no plan yet.
  double lower_bound = 0;
};

struct PolicyResult {
  std::string name;
  std::vector<IntervalFigures> intervals;
  uint64_t plans = 0;
  // Plans that could not be made, and why the last one could not.
  uint64_t failed_plans = 0;
  std::string failure;
  // Time that planning took, all of it.
  double planning_s = 0;
};

struct SimulationResult {
  std::vector<PolicyResult> policies;
};

// Means over the intervals, weighted with tokens; sums of moves and bytes; the worst of the worst.
IntervalFigures Summarise(const PolicyResult& result);

// Intervals that are simulated at most: what a report can hold.
inline constexpr uint64_t kMaxIntervals = 50'000;

// `progress` is called after every interval with how many are done.
//   INVALID_ARGUMENT     mesh or policies are not what they must be (no policy, a name that comes
//                        twice, a bias for a load without scores), or there are too many intervals.
//   RESOURCE_EXHAUSTED   the first placement does not fit.
absl::StatusOr<SimulationResult> Simulate(LoadSource& load, const MeshModel& mesh,
                                          const std::vector<Policy>& policies,
                                          const SimulationOptions& options,
                                          const std::function<void(uint64_t)>& progress = {});

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_SIMULATION_H_
