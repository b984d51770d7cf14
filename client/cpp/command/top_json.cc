#include <optional>

#include "client/cpp/command/balance_report.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/top_report.h"
#include "common/base/peer_text.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

nlohmann::json OrNull(const std::optional<double>& number) {
  return number ? nlohmann::json(*number) : nlohmann::json();
}

nlohmann::json ToJson(const NodeFigures& figures) {
  const client::NodeInfo& node = figures.node;
  return {{"address", PeerText(node.address)},
          {"node_id", PeerText(node.node_id)},
          {"link", LinkName(node.link)},
          {"reason", PeerText(node.reason)},
          {"batches_in_flight", node.batches_in_flight},
          {"rows_in_flight", node.rows_in_flight},
          {"computed_assignments", node.computed_assignments},
          {"compute_us", absl::ToInt64Microseconds(node.compute_time)},
          {"assignments_per_second", OrNull(figures.assignments_per_second)},
          {"compute_us_per_assignment",
           figures.compute_each ? nlohmann::json(absl::ToDoubleMicroseconds(*figures.compute_each))
                                : nlohmann::json()},
          {"busy", OrNull(figures.busy)},
          {"link_us_per_assignment", absl::ToDoubleMicroseconds(node.link_time_per_assignment)}};
}

nlohmann::json ToJson(const LayerFigures& layer) {
  return {{"layer", layer.layer},
          {"tokens", layer.tokens},
          {"tokens_per_second", OrNull(layer.tokens_per_second)},
          {"busy", OrNull(layer.busy)},
          {"max_violation", layer.max_violation},
          {"compared_tokens", layer.compared_tokens},
          {"changed_tokens", layer.changed_tokens}};
}

nlohmann::json StagesJson(const RecentStages& recent, const std::vector<StageFigures>& stages) {
  nlohmann::json kept = nlohmann::json::object();
  for (const auto& [reason, count] : recent.kept) {
    kept[PeerText(reason)] = count;
  }
  nlohmann::json json = {{"error", PeerText(recent.status.message())},
                         {"traces", recent.requests.size()},
                         {"kept", std::move(kept)}};
  for (const StageFigures& stage : stages) {
    json[stage.name] = {{"median_us", absl::ToDoubleMicroseconds(stage.median)},
                        {"p90_us", absl::ToDoubleMicroseconds(stage.p90)},
                        {"longest_us", absl::ToDoubleMicroseconds(stage.longest)}};
  }
  return json;
}

template <typename Figures>
nlohmann::json ListJson(const std::vector<Figures>& figures) {
  nlohmann::json list = nlohmann::json::array();
  for (const Figures& each : figures) {
    list.push_back(ToJson(each));
  }
  return list;
}

}  // namespace

std::string TopJson(const std::string& router, const TopReading& reading,
                    const TopFigures& figures) {
  nlohmann::json experts = nlohmann::json::array();
  for (const ExpertFigures& expert : figures.experts) {
    experts.push_back({{"layer", expert.layer},
                       {"expert", expert.expert},
                       {"assignments", expert.assignments},
                       {"over_even", expert.over_even}});
  }
  const nlohmann::json json = {
      {"router", router},
      {"unix_ms", absl::ToUnixMillis(reading.time)},
      {"error", ""},
      {"interval_s", figures.interval ? nlohmann::json(absl::ToDoubleSeconds(*figures.interval))
                                      : nlohmann::json()},
      {"window_s", absl::ToDoubleSeconds(figures.window)},
      {"epoch", reading.topology.epoch},
      {"ready", reading.topology.ready},
      {"balance", SummaryJson(reading.topology.balance)},
      {"tokens_per_second", OrNull(figures.tokens_per_second)},
      {"layer_tokens_per_second", OrNull(figures.layer_tokens_per_second)},
      {"nodes", ListJson(figures.nodes)},
      {"layers", ListJson(figures.layers)},
      {"hottest_experts", std::move(experts)},
      {"stages", StagesJson(reading.stages, figures.stages)}};
  return json.dump() + "\n";
}

std::string AwayJson(const std::string& router, const absl::Status& why, absl::Time now) {
  const nlohmann::json json = {
      {"router", router}, {"unix_ms", absl::ToUnixMillis(now)}, {"error", PeerText(why.message())}};
  return json.dump() + "\n";
}

}  // namespace expertmesh::command
