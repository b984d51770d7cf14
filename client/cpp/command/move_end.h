// How a move of copies ends, told from what a router says of its moves.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_MOVE_END_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_MOVE_END_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "client/cpp/expertmesh/control.h"

namespace expertmesh::command {

// Follows one move. Not thread-safe.
class MoveEnd {
 public:
  // `before`: just before the move was asked for. `begun`: in the answer to that.
  MoveEnd(const client::PlacementMoves& before, const client::PlacementMoves& begun);
  // One that is under way, as when it is to be undone.
  explicit MoveEnd(const client::PlacementMoves& under_way);

  // `now`: each later state in turn, the answer's first. Unset: the move goes on. OK: copies are
  // where they were to be. ABORTED: it failed and was undone, with the reason. UNKNOWN: the router
  // does not know of it any more, such as after a restart.
  std::optional<absl::Status> After(const client::PlacementMoves& now);

 private:
  // Moves that had ended when this one began.
  uint64_t completed_;
  uint64_t failed_;
  // Why it is being undone.
  std::string why_;
};

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_MOVE_END_H_
