#include "client/cpp/command/balance_report.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/placement_report.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

absl::Status Run(const Options& options) {
  const bool json = options.Has("json");
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  return In(options.Text("router"),
            mesh->WatchPlacement([json](const client::PlacementState& placement) {
              PrintPlacement(placement, /*with_plan=*/false, json);
              return true;
            }));
}

}  // namespace

Command PlacementWatchCommand() {
  return {{"placement watch", "Placement, without its plan, after every change, until Ctrl-C.", "",
           WithRouter({BalanceJsonOption()})},
          &Run};
}

}  // namespace expertmesh::command
