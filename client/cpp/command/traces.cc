#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/trace_report.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

std::string ToJson(const std::vector<client::TraceSummary>& traces) {
  nlohmann::json list = nlohmann::json::array();
  for (const client::TraceSummary& trace : traces) {
    list.push_back({{"trace_id", trace.trace_id},
                    {"name", trace.name},
                    {"start_unix_us", absl::ToUnixMicros(trace.start)},
                    {"duration_us", absl::ToInt64Microseconds(trace.duration)},
                    {"layer", trace.layer},
                    {"tokens", trace.tokens},
                    {"code", absl::StatusCodeToString(trace.code)},
                    {"kept", trace.kept},
                    {"spans", trace.spans}});
  }
  return list.dump() + "\n";
}

absl::Status Run(const Options& options) {
  const std::string& router = options.Text("router");
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  const auto traces =
      mesh->ListTraces(static_cast<uint32_t>(options.Whole("limit")), options.Has("slowest"));
  if (!traces.ok()) {
    return In(router, traces.status());
  }
  std::fputs((options.Has("json") ? ToJson(*traces) : DescribeTraces(*traces)).c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace

Command TracesCommand() {
  return {
      {"traces", "Lists traces that the router keeps, the newest first.", "",
       WithRouter({CountOption("limit", "traces at most", "20"),
                   {.name = "slowest", .kind = OptionKind::kSwitch, .help = "the longest first"},
                   {.name = "json", .kind = OptionKind::kSwitch, .help = "as JSON"}})},
      &Run};
}

}  // namespace expertmesh::command
