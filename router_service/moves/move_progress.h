// How far a move of experts is, for operators and metrics. Plain data.
#ifndef EXPERTMESH_ROUTER_SERVICE_MOVES_MOVE_PROGRESS_H_
#define EXPERTMESH_ROUTER_SERVICE_MOVES_MOVE_PROGRESS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace expertmesh::moves {

enum class MovePhase {
  kIdle,           // Nothing to do.
  kLoading,        // New copies are loaded.
  kSwitching,      // Waits until every router follows the plan whose copies are there.
  kUnloading,      // Copies that no plan needs are let go.
  kSwitchingBack,  // The move failed: waits until no router follows its plan.
  kUndoing,        // The move failed: its new copies are let go, what it let go is loaded again.
};
// "loading" and so on: for metrics.
const char* NameOf(MovePhase phase);

struct MoveProgress {
  MovePhase phase = MovePhase::kIdle;
  // Nodes are brought back to the plan in force, such as after they restarted.
  bool repair = false;
  // The move, or the last one. InfinitePast: there was none.
  absl::Time started = absl::InfinitePast();
  absl::Time ended = absl::InfinitePast();
  // New copies, and about how many bytes they take.
  uint64_t copies_done = 0;
  uint64_t copies_all = 0;
  uint64_t bytes_done = 0;
  uint64_t bytes_all = 0;
  uint64_t copies_unloaded = 0;
  // Over the time since it started.
  double bytes_per_second = 0;
  // What it waits for; empty: nothing.
  std::string waits_for;
  // What went wrong last. The message says what became of it.
  absl::Status last_error;
  // Since the mover was made.
  uint64_t moves_completed = 0;
  uint64_t moves_failed = 0;
  uint64_t repairs_completed = 0;
};

}  // namespace expertmesh::moves

#endif  // EXPERTMESH_ROUTER_SERVICE_MOVES_MOVE_PROGRESS_H_
