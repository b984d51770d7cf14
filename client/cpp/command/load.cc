#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/numbers.h"
#include "client/cpp/command/statistics.h"
#include "common/balance/measures.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

// What a layer's experts got.
struct Summary {
  uint64_t assignments = 0;
  double mean = 0;
  uint64_t max = 0;
  // Who got `max`; the first of them.
  size_t busiest = 0;
  double max_violation = 0;
};

Summary Summarize(const std::vector<uint64_t>& assignments) {
  Summary summary;
  if (assignments.empty()) {
    return summary;
  }
  for (const uint64_t count : assignments) {
    summary.assignments += count;
  }
  summary.mean = static_cast<double>(summary.assignments) / static_cast<double>(assignments.size());
  const auto busiest = std::max_element(assignments.begin(), assignments.end());
  summary.max = *busiest;
  summary.busiest = static_cast<size_t>(busiest - assignments.begin());
  summary.max_violation = balance::MaxViolation(assignments);
  return summary;
}

std::string ToJson(const client::Load& load) {
  nlohmann::json layers = nlohmann::json::array();
  for (const client::LayerLoad& layer : load.layers) {
    const Summary summary = Summarize(layer.assignments);
    layers.push_back({{"layer", layer.layer},
                      {"tokens", layer.tokens},
                      {"assignments", layer.assignments},
                      {"mean", summary.mean},
                      {"max", summary.max},
                      {"max_violation", summary.max_violation}});
  }
  return nlohmann::json{{"epoch", load.epoch}, {"layers", std::move(layers)}}.dump() + "\n";
}

std::string Describe(const client::Load& load) {
  std::vector<std::vector<std::string>> table = {
      {"layer", "tokens", "assignments", "experts", "mean", "max", "busiest", "MaxVio"}};
  for (const client::LayerLoad& layer : load.layers) {
    const Summary summary = Summarize(layer.assignments);
    table.push_back({absl::StrCat(layer.layer), WithThousands(layer.tokens),
                     WithThousands(summary.assignments), absl::StrCat(layer.assignments.size()),
                     absl::StrFormat("%.1f", summary.mean), WithThousands(summary.max),
                     summary.max == 0 ? "-" : absl::StrCat("expert ", summary.busiest),
                     absl::StrFormat("%.2f", summary.max_violation)});
  }
  return FormatTable(table);
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  const absl::StatusOr<client::Load> load = mesh->GetLoad();
  if (!load.ok()) {
    return In(options.Text("router"), load.status());
  }
  const std::string text = options.Has("json") ? ToJson(*load) : Describe(*load);
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace

Command LoadCommand() {
  return {
      {"load", "Tokens of each layer and assignments of its experts since the router started.", "",
       WithRouter({{.name = "json",
                    .kind = OptionKind::kSwitch,
                    .help = "one JSON object, with the assignments of every expert"}})},
      &Run};
}

}  // namespace expertmesh::command
