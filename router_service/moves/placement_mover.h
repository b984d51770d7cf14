// Moves experts between nodes, live, until nodes hold what a plan says; and keeps them so.
// placement_move.h says in what order.
#ifndef EXPERTMESH_ROUTER_SERVICE_MOVES_PLACEMENT_MOVER_H_
#define EXPERTMESH_ROUTER_SERVICE_MOVES_PLACEMENT_MOVER_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"
#include "router_service/moves/movable_nodes.h"
#include "router_service/moves/move_progress.h"
#include "router_service/moves/mover_options.h"
#include "router_service/moves/placement_move.h"

namespace expertmesh::moves {

// Who decides on plans. Called on the timers' thread, one call at a time, without locks; must not
// block, and may call the mover.
struct MoveOwner {
  // Routers are to follow `plan` (null: none) from now on. When every one does, for all batches
  // that begin, PlacementMover::Confirm(switch_id) is due.
  std::function<void(uint64_t switch_id, PlanPtr plan)> switch_plan;
  // A move, or a repair, has ended.
  std::function<void(const MoveOutcome& outcome)> on_end;
};

// Thread-safe. Nothing waits: decisions are made on the timers' thread, and no lock is held while
// nodes are asked. At most one request to a node is under way.
class PlacementMover {
 public:
  // `nodes`, `timers` (on `clock`) and `clock` must outlive the mover.
  PlacementMover(MoverOptions options, ExpertSizes sizes, MovableNodes* nodes, MoveOwner owner,
                 TimerQueue* timers, Clock* clock);
  // Leaves things as they are. No call to the owner runs afterwards; not from one.
  ~PlacementMover();
  PlacementMover(const PlacementMover&) = delete;
  PlacementMover& operator=(const PlacementMover&) = delete;

  // As PlacementMove's. `term`: in which this router decides; nodes refuse a lower one than they
  // have seen.
  absl::Status Adopt(uint64_t term, PlanPtr plan);
  absl::Status Start(uint64_t term, PlanPtr plan);
  void Confirm(uint64_t switch_id);
  absl::Status Abort(const absl::Status& why);
  void Resign();

  // What MovableNodes::Nodes() says may have changed. Cheap.
  void OnNodesChanged();

  MoveProgress progress() const;
  // What routers follow; null: no plan.
  PlanPtr in_force() const;

 private:
  struct Shared;

  void Step();
  void Send(uint64_t term, const MoveActions::Call& call);

  MovableNodes* const nodes_;
  const MoveOwner owner_;
  const MoverOptions options_;
  Clock* const clock_;
  TimerQueue* const timers_;
  // Shared with requests that are under way, which may outlive the mover.
  const std::shared_ptr<Shared> shared_;
};

}  // namespace expertmesh::moves

#endif  // EXPERTMESH_ROUTER_SERVICE_MOVES_PLACEMENT_MOVER_H_
