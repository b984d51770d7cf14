#include "client/cpp/command/balance_report.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/placement_report.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  const absl::StatusOr<client::PlacementState> placement = mesh->GetPlacement();
  if (!placement.ok()) {
    return In(options.Text("router"), placement.status());
  }
  PrintPlacement(*placement, /*with_plan=*/true, options.Has("json"));
  return absl::OkStatus();
}

}  // namespace

Command PlacementShowCommand() {
  return {{"placement show",
           "Which copies of experts are planned, how far their moves are, and why nothing moves.",
           "", WithRouter({BalanceJsonOption()})},
          &Run};
}

}  // namespace expertmesh::command
