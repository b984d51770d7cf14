#include "client/cpp/command/balance_report.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  const absl::StatusOr<client::Balance> balance = mesh->GetBalance();
  if (!balance.ok()) {
    return In(options.Text("router"), balance.status());
  }
  PrintBalance(*balance, options.Has("json"), options.Has("measures"));
  return absl::OkStatus();
}

}  // namespace

Command BalanceShowCommand() {
  return {{"balance show", "How load is balanced over experts, and whether that is alive.", "",
           WithRouter({{.name = "measures",
                        .kind = OptionKind::kSwitch,
                        .help = "how evenly each layer's experts are used, by every measure"},
                       BalanceJsonOption()})},
          &Run};
}

}  // namespace expertmesh::command
