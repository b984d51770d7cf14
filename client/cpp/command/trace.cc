#include <cstdio>
#include <memory>
#include <string>

#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/trace_report.h"
#include "common/base/status_macros.h"
#include "common/trace/otlp_json.h"

namespace expertmesh::command {
namespace {

absl::Status Run(const Options& options) {
  const std::string& router = options.Text("router");
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  const absl::StatusOr<std::string> bytes = mesh->GetTrace(options.argument());
  if (!bytes.ok()) {
    return In(router, bytes.status());
  }
  internal::otlp::TracesData data;
  if (!data.ParseFromString(*bytes)) {
    return In(router, absl::InternalError("its answer is no trace"));
  }
  std::fputs(
      options.Has("json") ? (trace::ToOtlpJson(data) + "\n").c_str() : DescribeTrace(data).c_str(),
      stdout);
  return absl::OkStatus();
}

}  // namespace

Command TraceCommand() {
  return {{"trace", "Draws a trace that the router keeps: where a request's time went.", "TRACE_ID",
           WithRouter({{.name = "json",
                        .kind = OptionKind::kSwitch,
                        .help = "OTLP/JSON, for other viewers"}})},
          &Run};
}

}  // namespace expertmesh::command
