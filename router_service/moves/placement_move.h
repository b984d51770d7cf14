// What to do next so that nodes come to hold what a plan says: the decisions alone, without
// threads, locks or I/O.
//
// Copies are loaded first; when all are there the owner is asked to have every router follow the
// plan; only then copies that it does not need are let go. Where a node has no room for what it
// is to load, it first lets go of copies that the plan does not need and that routers have
// elsewhere; where that is not enough, routers follow as much of the plan as is there, which frees
// more.
//
// A copy is let go only while another one of its expert is ready that routers use: one of the plan
// that they follow or, while they follow none, one that was there when the move began.
//
// A move that cannot be completed is undone: routers are brought back to the plan that they
// followed, its new copies are let go, and those that it let go of are loaded again. What routers
// already followed of it, since there was no room else, stays.
#ifndef EXPERTMESH_ROUTER_SERVICE_MOVES_PLACEMENT_MOVE_H_
#define EXPERTMESH_ROUTER_SERVICE_MOVES_PLACEMENT_MOVE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/balance/placement_plan.h"
#include "router_service/moves/compiled_plan.h"
#include "router_service/moves/move_progress.h"
#include "router_service/moves/mover_options.h"
#include "router_service/moves/node_table.h"

namespace expertmesh::moves {

using PlanPtr = std::shared_ptr<const balance::PlacementPlan>;

// How a move, or a repair, ended.
struct MoveOutcome {
  bool repair = false;
  // Another authority decides: nothing is done any more, and nothing was undone.
  bool fenced = false;
  absl::Status status;
  // What routers follow now.
  PlanPtr in_force;
};

// What is to be done now.
struct MoveActions {
  struct Call {
    uint64_t id = 0;
    CallKind kind = CallKind::kLoad;
    std::string node_id;
    std::vector<ExpertKey> keys;
  };
  struct Switch {
    uint64_t id = 0;
    // Null: none, every copy that is offered is used.
    PlanPtr plan;
  };

  std::vector<Call> calls;
  std::optional<Switch> switch_to;
  std::optional<MoveOutcome> ended;
  // When to step again if nothing happens before.
  absl::Time wake = absl::InfiniteFuture();
};

// Not thread-safe. After every call but progress(), Step is due.
class PlacementMove {
 public:
  PlacementMove(MoverOptions options, ExpertSizes sizes);

  // Routers follow `plan` (null: none) now. From then on nodes that do not hold what it says, such
  // as after a restart, are brought back to it. Errors as Start.
  absl::Status Adopt(PlanPtr plan);

  // Begins a move to `plan`.
  //   FAILED_PRECONDITION  another move is under way.
  //   INVALID_ARGUMENT     the plan is none (see CompiledPlan), or needs more memory than one of
  //                        `nodes` has.
  absl::Status Start(PlanPtr plan, absl::Time now, const std::vector<NodeState>& nodes);

  // Every router follows the plan of that Switch. No effect for another one than the last.
  void Confirm(uint64_t switch_id);

  // Undoes the move that is under way. FAILED_PRECONDITION when none is, or when routers follow its
  // whole plan already.
  absl::Status Abort(const absl::Status& why);

  // This router decides no more: forgets plans and calls.
  void Resign();

  void Answer(uint64_t call_id, const absl::Status& status, uint64_t weights_bytes, absl::Time now);

  MoveActions Step(absl::Time now, const std::vector<NodeState>& nodes);

  MoveProgress progress(absl::Time now) const;
  PlanPtr in_force() const { return in_force_ == nullptr ? nullptr : in_force_->plan(); }

 private:
  using Copy = std::pair<std::string, ExpertKey>;  // node_id first.
  using KeysByNode = std::map<std::string, std::vector<ExpertKey>>;

  // True when the phase has changed, and the next one is to be stepped at once.
  bool StepPhase();
  bool StepIdle();
  bool StepLoading();
  bool StepSwitching();
  bool StepUnloading();
  bool StepSwitchingBack();
  bool StepUndoing();

  void Begin(CompiledPlanPtr target, bool repair);
  void EnterPhase(MovePhase phase);
  void BeginSwitch(CompiledPlanPtr plan, MovePhase phase);
  void Fail(absl::Status why);
  void End(const absl::Status& status);
  void OnVerdict(const Verdict& verdict);

  // Copies of the plan that are not on their nodes.
  KeysByNode Missing(const CompiledPlan& plan) const;
  // Copies, on nodes and of layers that the target knows, which neither it nor the plan in force
  // needs.
  KeysByNode Extra() const;
  // Copies of experts of which every copy of the target is there, as it has them; others as before.
  CompiledPlanPtr AsFarAsLoaded() const;
  bool AllReady(const ExpertKey& key, const std::vector<NamedCopy>& copies) const;
  // What routers have for sure, whatever becomes of the copy on `node_id`.
  bool HasBackup(const std::string& node_id, const ExpertKey& key) const;

  // Asks the node for as many of `keys`, not empty, as now may be. False: it has no room.
  bool LoadSome(const std::string& node_id, const std::vector<ExpertKey>& keys);
  // Makes room for so many bytes; false when there is none to be made.
  bool FreeSome(const std::string& node_id, uint64_t bytes);
  // Asks the nodes to let go of what has a backup. True: some of it is under way, or will be.
  bool UnloadSome(const KeysByNode& keys, size_t* without_backup);
  // Lets routers follow what is there of the target, which frees more; fails where that is no more
  // than they follow already.
  bool MakeRoomFor(const std::string& node_id);
  // Routers used the copy before the move.
  bool WasNeeded(const std::string& node_id, const ExpertKey& key) const;
  void AwaitCalls();
  void Send(const std::string& node_id, CallKind kind, std::vector<ExpertKey> keys);
  // True when the node is to be waited for.
  bool AwaitNode(const std::string& node_id);
  void WaitFor(std::string what, absl::Time until);
  void CountLoaded(const KeysByNode& missing);

  const MoverOptions options_;
  NodeTable nodes_;

  MovePhase phase_ = MovePhase::kIdle;
  absl::Time phase_since_ = absl::InfinitePast();
  // What routers follow; null: no plan.
  CompiledPlanPtr in_force_;
  // While they follow none: what was there when the move began.
  CompiledPlanPtr established_ = CompiledPlan::FromCopies({});
  CompiledPlanPtr target_;
  CompiledPlanPtr switching_to_;
  uint64_t switch_id_ = 0;
  bool confirmed_ = false;
  // By this move: what it asked for, and what it let go of although routers used it.
  std::set<Copy> loaded_;
  std::set<Copy> freed_;
  std::set<std::string> given_up_;  // Nodes that refuse; until the move ends.
  absl::Status failure_;            // The move is to be undone.
  absl::Status undone_for_;
  bool fenced_ = false;
  absl::Time repair_not_before_ = absl::InfinitePast();
  int failed_repairs_ = 0;

  MoveProgress progress_;
  // In the step under way.
  absl::Time now_;
  MoveActions actions_;
};

}  // namespace expertmesh::moves

#endif  // EXPERTMESH_ROUTER_SERVICE_MOVES_PLACEMENT_MOVE_H_
