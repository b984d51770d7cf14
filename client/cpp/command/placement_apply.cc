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

// The plan of --plan, for the model that the router serves; unset when that is not given.
absl::StatusOr<std::optional<client::PlacementPlan>> PlanOf(const Options& options,
                                                            client::Client& mesh) {
  if (!options.Has("plan")) {
    return std::nullopt;
  }
  const absl::StatusOr<client::ModelInfo> model = mesh.DescribeModel();
  if (!model.ok()) {
    return In(options.Text("router"), model.status());
  }
  ASSIGN_OR_RETURN(client::PlacementPlan plan, ReadPlan(options.Text("plan"), model->outline));
  return plan;
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

absl::Status Move(const Options& options, client::Client& mesh,
                  const std::optional<client::PlacementPlan>& plan) {
  ASSIGN_OR_RETURN(const client::PlacementState before, mesh.GetPlacement());
  const bool aborts = options.Has("abort");
  ASSIGN_OR_RETURN(client::PlacementState state,
                   aborts ? mesh.AbortPlacement() : mesh.ApplyPlacement(plan));
  const bool waits = options.Has("wait");
  if (waits) {
    const MoveEnd end = aborts ? MoveEnd(before.moves) : MoveEnd(before.moves, state.moves);
    const absl::Status ended = Await(mesh, absl::Now() + options.Duration("wait"), end, &state);
    const bool as_wanted = aborts ? absl::IsAborted(ended) : ended.ok();
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
  ASSIGN_OR_RETURN(const std::optional<client::PlacementPlan> plan, PlanOf(options, *mesh));
  const absl::Status moved = In(options.Text("router"), Move(options, *mesh, plan));
  return plan ? In(options.Text("plan"), moved) : moved;
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
