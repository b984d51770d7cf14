// Where copies of experts are to be: asks the planner, has its plans moved, and remembers what came
// of it.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_PLACEMENT_STEERING_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_PLACEMENT_STEERING_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/balance/placement_planner.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"
#include "expertmesh/v1/control.pb.h"
#include "expertmesh/v1/placement.pb.h"
#include "router_service/balance/load_counts.h"
#include "router_service/balance/placement_policy.h"
#include "router_service/balance/planning_input.h"
#include "router_service/balance/steered_model.h"
#include "router_service/mesh/fleet.h"
#include "router_service/moves/fleet_nodes.h"
#include "router_service/moves/placement_mover.h"

namespace expertmesh::balance_control {

// Thread-safe.
class PlacementSteering {
 public:
  // `switch_plan`: every router is to follow the plan; Confirm is due when they do. Called on a
  // thread of its own, without locks; must not block. Pointers must outlive it.
  PlacementSteering(const SteeredModel* model, moves::MoverOptions options, mesh::Fleet* fleet,
                    std::function<void(uint64_t switch_id, moves::PlanPtr plan)> switch_plan,
                    Clock* clock);

  // This router decides from now on, within `term`; batches follow `plan` (null: none).
  void Decide(uint64_t term, moves::PlanPtr plan);
  // It decides no more.
  void Resign();

  // `loads`: of late, of the whole mesh. Plans and moves when the policy says that it is time to.
  void Tick(const LoadCounts& loads, const PlacementPolicy& policy);

  // As Control's. Apply: `plan` null: what the planner says.
  absl::StatusOr<v1::PlacementProposal> Propose(const LoadCounts& loads,
                                                const PlacementPolicy& policy);
  absl::Status Apply(moves::PlanPtr plan, const LoadCounts& loads, const PlacementPolicy& policy);
  absl::Status Abort();
  void Confirm(uint64_t switch_id) { mover_.Confirm(switch_id); }
  // The nodes may have changed. Cheap.
  void OnNodesChanged() { mover_.OnNodesChanged(); }

  // All but the policy and the epoch. `with_plan`: the plan in force, too.
  v1::PlacementState Describe(bool with_plan) const;
  // What keeps it from working; empty: nothing.
  std::string problem() const;

 private:
  struct Planned {
    balance::PlanningInput input;
    balance::PlanningResult result;
    // The result's plan, with the layers that were not planned for as they are.
    moves::PlanPtr whole;
  };

  absl::StatusOr<Planned> Plan(const v1::Topology& topology, const LoadCounts& loads,
                               const PlacementPolicy& policy, DrainingNodes draining) const;
  void OnEnd(const moves::MoveOutcome& outcome);
  // Why no plan is made by itself now; empty: one is.
  std::string WhyNot(const v1::Topology& topology) const;

  const SteeredModel* const model_;
  const moves::MoverOptions options_;
  mesh::Fleet* const fleet_;
  Clock* const clock_;

  mutable absl::Mutex mutex_;
  uint64_t term_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: this router does not decide.
  absl::Time planned_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time moved_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  // Without plan and moves.
  std::optional<v1::PlacementProposal> last_ ABSL_GUARDED_BY(mutex_);
  std::string problem_ ABSL_GUARDED_BY(mutex_);

  // The mover's own: its steps are too long for those who wait for deadlines.
  TimerQueue timers_;
  moves::FleetNodes nodes_;
  moves::PlacementMover mover_;  // Last: calls back into the above.
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_PLACEMENT_STEERING_H_
