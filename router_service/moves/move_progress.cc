#include "router_service/moves/move_progress.h"

#include "common/base/check.h"

namespace expertmesh::moves {

const char* NameOf(MovePhase phase) {
  switch (phase) {
    case MovePhase::kIdle:
      return "idle";
    case MovePhase::kLoading:
      return "loading";
    case MovePhase::kSwitching:
      return "switching";
    case MovePhase::kUnloading:
      return "unloading";
    case MovePhase::kSwitchingBack:
      return "switching_back";
    case MovePhase::kUndoing:
      return "undoing";
  }
  EXPERTMESH_CHECK(false);
}

}  // namespace expertmesh::moves
