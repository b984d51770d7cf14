#include <cstdio>
#include <string>

#include "client/cpp/command/bias_file.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

absl::Status Run(const Options& options) {
  const std::string& path = options.argument();
  ASSIGN_OR_RETURN(const client::Bias bias, ReadBias(path));
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  const absl::StatusOr<client::Balance> balance = mesh->SetBias(bias);
  if (!balance.ok()) {
    return In(path, In(options.Text("router"), balance.status()));
  }
  std::printf("%s: bias of %zu layers is in force from epoch %llu on\n", path.c_str(),
              bias.layers.size(), static_cast<unsigned long long>(balance->epoch));
  return absl::OkStatus();
}

}  // namespace

Command BalanceImportCommand() {
  return {{"balance import",
           "Puts the selection bias of a file of `balance export` in force; policies go on from "
           "there.",
           "FILE", WithRouter({})},
          &Run};
}

}  // namespace expertmesh::command
