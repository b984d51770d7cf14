#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/command/balance_report.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/move_end.h"
#include "client/cpp/command/placement_report.h"
#include "client/cpp/command/plan_file.h"
#include "client/cpp/command/progress.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

// Often enough that why a move is undone is seen before the next one begins.
constexpr absl::Duration kLookAgain = absl::Milliseconds(50);

absl::StatusOr<client::PlacementState> Begin(const Options& options, client::Client& mesh) {
  if (options.Has("abort")) {
    return mesh.AbortPlacement();
  }
  if (!options.Has("plan")) {
    return mesh.ApplyPlacement();
  }
  ASSIGN_OR_RETURN(const client::ModelInfo model, mesh.DescribeModel());
  ASSIGN_OR_RETURN(const client::PlacementPlan plan, ReadPlan(options.Text("plan"), model.outline));
  return mesh.ApplyPlacement(plan);
}

// Until the move is over, or `deadline`. `state`: from the answer on.
absl::Status Await(client::Client& mesh, absl::Time deadline, MoveEnd end,
                   client::PlacementState* state) {
  Progress progress("moving", 0);
  for (;;) {
    progress.Set(state->moves.bytes_done, state->moves.bytes_all);
    if (const std::optional<absl::Status> ended = end.After(state->moves)) {
      return *ended;
    }
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "the move is not over (", DescribePhase(state->moves),
          "); it goes on, and `placement watch` shows how far: wait for longer, or --abort"));
    }
    absl::SleepFor(kLookAgain);
    ASSIGN_OR_RETURN(*state, mesh.GetPlacement());
  }
}

absl::Status Move(const Options& options, client::Client& mesh) {
  ASSIGN_OR_RETURN(const client::PlacementState before, mesh.GetPlacement());
  ASSIGN_OR_RETURN(client::PlacementState state, Begin(options, mesh));
  const bool waits = options.Has("wait");
  if (waits) {
    const absl::Status ended = Await(mesh, absl::Now() + options.Duration("wait"),
                                     MoveEnd(before.moves, state.moves), &state);
    const bool as_wanted = options.Has("abort") ? absl::IsAborted(ended) : ended.ok();
    if (!as_wanted) {
      return ended.ok() ? absl::FailedPreconditionError("the move was completed, and not undone")
                        : ended;
    }
    ASSIGN_OR_RETURN(state, mesh.GetPlacement());
  }
  PrintPlacement(state, /*with_plan=*/waits, options.Has("json"));
  return absl::OkStatus();
}

absl::Status Run(const Options& options) {
  if (options.Has("plan") && options.Has("abort")) {
    return absl::InvalidArgumentError("--plan and --abort are given; leave one out");
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  return In(options.Text("router"), Move(options, *mesh));
}

}  // namespace

Command PlacementApplyCommand() {
  return {{"placement apply",
           "Moves copies of experts to where the planner says, or a file; new ones are loaded "
           "before old ones go. Exit status: 0 begun, or over with --wait; 1 refused, undone, or "
           "still under way.",
           "",
           WithRouter({{.name = "plan", .value = "FILE", .help = "of `placement plan --out`"},
                       {.name = "abort",
                        .kind = OptionKind::kSwitch,
                        .help = "undo the move that is under way instead"},
                       {.name = "wait",
                        .kind = OptionKind::kDuration,
                        .value = "SECONDS",
                        .help = "longest time to wait until the move is over"},
                       BalanceJsonOption()})},
          &Run};
}

}  // namespace expertmesh::command
