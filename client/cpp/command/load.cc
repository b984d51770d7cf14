#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cpp/command/balance_report.h"
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
  double variation = 0;
  double entropy = 1;
  balance::Collapse collapse;
};

Summary Summarize(const std::vector<uint64_t>& assignments, uint32_t top_k) {
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
  summary.variation = balance::CoefficientOfVariation(assignments);
  summary.entropy = balance::NormalisedEntropy(assignments);
  summary.collapse = balance::FindCollapse(assignments, top_k);
  return summary;
}

// By layer.
using TopK = std::map<uint32_t, uint32_t>;

// A layer that the model does not name counts as one of a single expert a token.
uint32_t TopKOf(const TopK& top_k, uint32_t layer) {
  const auto it = top_k.find(layer);
  return it == top_k.end() ? 1 : it->second;
}

std::string ToJson(const client::Load& load, const TopK& top_k) {
  nlohmann::json layers = nlohmann::json::array();
  for (const client::LayerLoad& layer : load.layers) {
    const Summary summary = Summarize(layer.assignments, TopKOf(top_k, layer.layer));
    layers.push_back({{"layer", layer.layer},
                      {"tokens", layer.tokens},
                      {"assignments", layer.assignments},
                      {"mean", summary.mean},
                      {"max", summary.max},
                      {"max_violation", summary.max_violation},
                      {"variation", summary.variation},
                      {"entropy", summary.entropy},
                      {"dead", balance::DeadExperts(layer.assignments)},
                      {"collapse", summary.collapse.text},
                      {"compared_tokens", layer.compared_tokens},
                      {"changed_tokens", layer.changed_tokens},
                      {"node_us", absl::ToInt64Microseconds(layer.node_time)}});
  }
  return nlohmann::json{{"epoch", load.epoch},
                        {"window_ms", absl::ToInt64Milliseconds(load.window)},
                        {"layers", std::move(layers)}}
             .dump() +
         "\n";
}

std::string Describe(const client::Load& load, const TopK& top_k) {
  std::vector<std::vector<std::string>> table = {{"layer", "tokens", "assignments", "experts",
                                                  "mean", "max", "busiest", "MaxVio", "CV",
                                                  "entropy", "dead", "changed"}};
  std::string collapses;
  for (const client::LayerLoad& layer : load.layers) {
    const Summary summary = Summarize(layer.assignments, TopKOf(top_k, layer.layer));
    table.push_back(
        {absl::StrCat(layer.layer), WithThousands(layer.tokens), WithThousands(summary.assignments),
         absl::StrCat(layer.assignments.size()), absl::StrFormat("%.1f", summary.mean),
         WithThousands(summary.max),
         summary.max == 0 ? "-" : absl::StrCat("expert ", summary.busiest),
         absl::StrFormat("%.2f", summary.max_violation), absl::StrFormat("%.2f", summary.variation),
         absl::StrFormat("%.3f", summary.entropy), absl::StrCat(summary.collapse.dead.size()),
         DescribeChanged(layer.changed_tokens, layer.compared_tokens)});
    if (summary.collapse.any()) {
      absl::StrAppend(&collapses, "layer ", layer.layer, " ", summary.collapse.text, "\n");
    }
  }
  const std::string window =
      load.window > absl::ZeroDuration()
          ? absl::StrFormat("in %.1f s:\n", absl::ToDoubleSeconds(load.window))
          : "";
  return absl::StrCat(window, FormatTable(table), collapses);
}

absl::Status Run(const Options& options) {
  const std::string& address = options.Text("router");
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  client::LoadOptions which;
  which.mesh = options.Has("mesh");
  if (options.Has("window")) {
    which.window = options.Duration("window");
  }
  const absl::StatusOr<client::Load> load = mesh->GetLoad(which);
  if (!load.ok()) {
    return In(address, load.status());
  }
  const absl::StatusOr<client::ModelInfo> model = mesh->DescribeModel();
  if (!model.ok()) {
    return In(address, model.status());
  }
  TopK top_k;
  for (const client::LayerInfo& layer : model->layers) {
    top_k[layer.layer] = layer.experts_per_token;
  }
  const std::string text = options.Has("json") ? ToJson(*load, top_k) : Describe(*load, top_k);
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace

Command LoadCommand() {
  return {{"load", "Tokens of each layer, assignments of its experts, and how even they are.", "",
           WithRouter({{.name = "mesh",
                        .kind = OptionKind::kSwitch,
                        .help = "of all routers that report to this one, too"},
                       {.name = "window",
                        .kind = OptionKind::kDuration,
                        .value = "TIME",
                        .help = "of the last 1s, 10s or 5m, the shortest that covers TIME; since "
                                "the router started when not given"},
                       {.name = "json",
                        .kind = OptionKind::kSwitch,
                        .help = "one JSON object, with the assignments of every expert"}})},
          &Run};
}

}  // namespace expertmesh::command
