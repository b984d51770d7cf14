#include "client/cpp/command/balance_report.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/placement_options.h"
#include "client/cpp/command/placement_report.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

absl::StatusOr<client::PlacementChange> ReadChange(const Options& options) {
  ASSIGN_OR_RETURN(client::PlacementChange change, ReadPlanning(options));
  if (options.Has("automatic") && options.Has("manual")) {
    return absl::InvalidArgumentError("--automatic and --manual are given; leave one out");
  }
  if (options.Has("automatic") || options.Has("manual")) {
    change.automatic = options.Has("automatic");
  }
  if (options.Has("interval")) {
    change.interval = options.Duration("interval");
  }
  if (!change.automatic && !change.interval && !change.min_copies && !change.max_copies &&
      !change.hysteresis && !change.byte_budget && !change.min_tokens) {
    return absl::InvalidArgumentError(
        "there is nothing to change; give --automatic, --manual, --min-copies or another one of "
        "--help");
  }
  return change;
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const client::PlacementChange change, ReadChange(options));
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  const absl::StatusOr<client::PlacementState> placement = mesh->SetPlacement(change);
  if (!placement.ok()) {
    return In(options.Text("router"), placement.status());
  }
  PrintPlacement(*placement, /*with_plan=*/false, options.Has("json"));
  return absl::OkStatus();
}

}  // namespace

Command PlacementSetCommand() {
  return {
      {"placement set", "Changes how copies of experts are planned; what is not given stays.", "",
       WithRouter(WithPlanning(
           {{.name = "automatic",
             .kind = OptionKind::kSwitch,
             .help = "plan again and again, and move what a plan says"},
            {.name = "manual", .kind = OptionKind::kSwitch, .help = "move when told alone"},
            {.name = "interval",
             .kind = OptionKind::kDuration,
             .value = "SECONDS",
             .help = "between two plans"},
            BalanceJsonOption()}))},
      &Run};
}

}  // namespace expertmesh::command
