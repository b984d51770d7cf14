#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cpp/command/balance_report.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/numbers.h"
#include "common/base/ranges.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

nlohmann::json ToJson(const std::vector<client::ExpertSet>& sets, bool with_slices) {
  nlohmann::json list = nlohmann::json::array();
  for (const client::ExpertSet& set : sets) {
    nlohmann::json entry = {{"layer", set.layer}, {"experts", set.experts}};
    if (with_slices) {
      entry["slice_index"] = set.slice_index;
      entry["slice_count"] = set.slice_count;
    }
    list.push_back(std::move(entry));
  }
  return list;
}

nlohmann::json ToJson(const std::vector<client::DamagedExperts>& damaged) {
  nlohmann::json list = nlohmann::json::array();
  for (const client::DamagedExperts& entry : damaged) {
    list.push_back({{"layer", entry.layer}, {"experts", entry.experts}, {"reason", entry.reason}});
  }
  return list;
}

nlohmann::json ToJson(const client::Topology& topology) {
  nlohmann::json nodes = nlohmann::json::array();
  for (const client::NodeInfo& node : topology.nodes) {
    nodes.push_back(
        {{"address", node.address},
         {"link", LinkName(node.link)},
         {"reason", node.reason},
         {"node_id", node.node_id},
         {"backend", node.backend},
         {"state", node.state},
         {"hosted", ToJson(node.hosted, true)},
         {"weights_bytes", node.weights_bytes},
         {"resident_bytes", node.resident_bytes},
         {"batches_in_flight", node.batches_in_flight},
         {"rows_in_flight", node.rows_in_flight},
         {"disconnects", node.disconnects},
         {"hidden_states_dtype", node.hidden_states_dtype},
         {"partials_dtype", node.partials_dtype},
         {"damaged", ToJson(node.damaged)},
         {"faulty_answers", node.faulty_answers},
         {"disagreements", node.disagreements},
         {"ejections", node.ejections},
         {"overdue_batches", node.overdue_batches},
         {"computed_assignments", node.computed_assignments},
         {"compute_us", absl::ToInt64Microseconds(node.compute_time)},
         {"link_us_per_assignment", absl::ToDoubleMicroseconds(node.link_time_per_assignment)}});
  }
  return {{"epoch", topology.epoch},
          {"ready", topology.ready},
          {"fingerprint", topology.fingerprint},
          {"nodes", std::move(nodes)},
          {"missing", ToJson(topology.missing, false)},
          {"lookup_error", topology.lookup_error},
          {"revision", topology.revision},
          {"balance", SummaryJson(topology.balance)}};
}

// Runs of layers that are held alike take one line.
std::string DescribeHosted(const std::vector<client::ExpertSet>& hosted) {
  std::string text;
  for (size_t begin = 0; begin < hosted.size();) {
    const client::ExpertSet& first = hosted[begin];
    std::vector<uint32_t> layers = {first.layer};
    size_t end = begin + 1;
    while (end < hosted.size() && hosted[end].experts == first.experts &&
           hosted[end].slice_index == first.slice_index &&
           hosted[end].slice_count == first.slice_count) {
      layers.push_back(hosted[end++].layer);
    }
    absl::StrAppend(&text, "    layer ", FormatRanges(layers), ": experts ",
                    FormatRanges(first.experts));
    if (first.slice_count > 1) {
      absl::StrAppend(&text, ", slice ", first.slice_index, " of ", first.slice_count);
    }
    absl::StrAppend(&text, "\n");
    begin = end;
  }
  return text;
}

// In the words of the router's log. Empty when the router is too old to tell.
std::string DescribeWire(const client::NodeInfo& node) {
  if (node.hidden_states_dtype.empty() || node.partials_dtype.empty()) {
    return "";
  }
  return absl::StrCat("    wire: hidden states go as ", node.hidden_states_dtype,
                      ", partials come as ", node.partials_dtype, "\n");
}

// What is not used of the node, though it is up. Empty when all is well.
std::string DescribeFaults(const client::NodeInfo& node) {
  std::string text;
  for (const client::DamagedExperts& damaged : node.damaged) {
    absl::StrAppend(&text, "    DAMAGED layer ", damaged.layer, ": experts ",
                    FormatRanges(damaged.experts), " are not used: ", damaged.reason, "\n");
  }
  if (node.faulty_answers > 0) {
    absl::StrAppend(&text, "    FAULTY answers that were not used: ", node.faulty_answers, "\n");
  }
  if (node.ejections > 0) {
    absl::StrAppend(&text, "    EJECTED so far: ", node.ejections,
                    " times; batches overdue: ", node.overdue_batches, "\n");
  }
  if (node.disagreements > 0) {
    absl::StrAppend(&text, "    DISAGREES with a replica in ", node.disagreements,
                    " cross-checks; the router's log names both\n");
  }
  return text;
}

std::string Describe(const client::Topology& topology) {
  std::string text =
      absl::StrCat("epoch ", topology.epoch, ", ", topology.ready ? "ready" : "not ready",
                   ", model ", topology.fingerprint.substr(0, 12), "\n");
  if (topology.balance.role != client::BalanceRole::kUnknown) {
    absl::StrAppend(&text, "balance: ", DescribeSummary(topology.balance), "\n");
  }
  for (const client::NodeInfo& node : topology.nodes) {
    absl::StrAppend(&text, "  ", DescribeNode(node), "\n", DescribeWire(node), DescribeFaults(node),
                    DescribeHosted(node.hosted));
  }
  if (!topology.lookup_error.empty()) {
    absl::StrAppend(&text, "nodes cannot be looked up: ", topology.lookup_error, "\n");
  }
  if (!topology.missing.empty()) {
    absl::StrAppend(&text, "missing: ", DescribeMissing(topology.missing), "\n");
  }
  return text;
}

void Print(const client::Topology& topology, bool json) {
  const std::string text = json ? ToJson(topology).dump() + "\n" : Describe(topology);
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

absl::Status Run(const Options& options) {
  const std::string& address = options.Text("router");
  const bool json = options.Has("json");
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  if (options.Has("watch")) {
    return In(address, mesh->WatchTopology([json](const client::Topology& topology) {
      Print(topology, json);
      return true;
    }));
  }
  const absl::StatusOr<client::Topology> topology = mesh->Topology();
  if (!topology.ok()) {
    return In(address, topology.status());
  }
  Print(*topology, json);
  return absl::OkStatus();
}

}  // namespace

Command TopologyCommand() {
  return {
      {"topology", "Nodes, their links, what each holds, and which experts are missing.", "",
       WithRouter({{.name = "json", .kind = OptionKind::kSwitch, .help = "one JSON object a line"},
                   {.name = "watch",
                    .kind = OptionKind::kSwitch,
                    .help = "again after every change, until Ctrl-C"}})},
      &Run};
}

}  // namespace expertmesh::command
