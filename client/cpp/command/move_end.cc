#include "client/cpp/command/move_end.h"

#include "absl/strings/str_cat.h"

namespace expertmesh::command {

namespace {

// A move that was under way before may have ended until this one began, and is not to be taken for
// it; but what is at rest in the answer is at rest since this one ended.
const client::PlacementMoves& Counted(const client::PlacementMoves& before,
                                      const client::PlacementMoves& begun) {
  return before.phase == "idle" || begun.phase == "idle" ? before : begun;
}

}  // namespace

MoveEnd::MoveEnd(const client::PlacementMoves& before, const client::PlacementMoves& begun)
    : completed_(Counted(before, begun).moves_completed),
      failed_(Counted(before, begun).moves_failed) {}

MoveEnd::MoveEnd(const client::PlacementMoves& under_way) : MoveEnd(under_way, under_way) {}

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
