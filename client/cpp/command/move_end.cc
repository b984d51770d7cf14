#include "client/cpp/command/move_end.h"

#include "absl/strings/str_cat.h"

namespace expertmesh::command {

// One that was under way before may have ended until this one began; when none was, one that is
// over in the answer was this one.
MoveEnd::MoveEnd(const client::PlacementMoves& before, const client::PlacementMoves& begun)
    : completed_(before.phase == "idle" ? before.moves_completed : begun.moves_completed),
      failed_(before.phase == "idle" ? before.moves_failed : begun.moves_failed) {}

std::optional<absl::Status> MoveEnd::After(const client::PlacementMoves& now) {
  if (!now.last_error.empty()) {
    why_ = now.last_error;
  }
  if (now.moves_failed > failed_) {
    return absl::AbortedError(
        absl::StrCat("the move was undone: ", why_.empty() ? "the router's log says why" : why_));
  }
  if (now.moves_completed > completed_) {
    return absl::OkStatus();
  }
  if (now.phase == "idle" || now.moves_completed < completed_ || now.moves_failed < failed_) {
    return absl::UnknownError(
        "the router does not know of the move any more: it was restarted, or another one took "
        "over; see `placement show`");
  }
  return std::nullopt;
}

}  // namespace expertmesh::command
