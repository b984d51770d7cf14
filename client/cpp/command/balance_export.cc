#include <cstdio>
#include <string>

#include "client/cpp/command/bias_file.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  const absl::StatusOr<client::Bias> bias = mesh->GetBias(options.Whole("epoch"));
  if (!bias.ok()) {
    return In(options.Text("router"), bias.status());
  }
  const std::string& output = options.Text("output");
  RETURN_IF_ERROR(WriteBias(output, *bias));
  std::printf("%s: bias of epoch %llu, %zu layers\n", output.c_str(),
              static_cast<unsigned long long>(bias->epoch), bias->layers.size());
  return absl::OkStatus();
}

}  // namespace

Command BalanceExportCommand() {
  return {{"balance export", "Writes the selection bias of all layers to a file of JSON.", "",
           WithRouter({{.name = "output",
                        .value = "FILE",
                        .help = "file to write, for `balance import`",
                        .required = true},
                       {.name = "epoch",
                        .kind = OptionKind::kWhole,
                        .value = "N",
                        .help = "epoch of the bias; 0: now",
                        .fallback = "0"}})},
          &Run};
}

}  // namespace expertmesh::command
