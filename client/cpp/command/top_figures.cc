#include "client/cpp/command/top_figures.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "client/cpp/command/statistics.h"
#include "common/balance/measures.h"

namespace expertmesh::command {
namespace {

constexpr size_t kExperts = 20;

// How much a counter grew, per second; nothing when it began again.
std::optional<double> RateOf(uint64_t before, uint64_t now, double seconds) {
  if (now < before || seconds <= 0) {
    return std::nullopt;
  }
  return static_cast<double>(now - before) / seconds;
}

std::optional<double> RateOf(absl::Duration before, absl::Duration now, double seconds) {
  if (now < before || seconds <= 0) {
    return std::nullopt;
  }
  return absl::ToDoubleSeconds(now - before) / seconds;
}

void SetRates(const client::NodeInfo& before, double seconds, NodeFigures* figures) {
  const client::NodeInfo& now = figures->node;
  figures->assignments_per_second =
      RateOf(before.computed_assignments, now.computed_assignments, seconds);
  figures->busy = RateOf(before.compute_time, now.compute_time, seconds);
  if (figures->busy.has_value() && figures->assignments_per_second.value_or(0) > 0) {
    figures->compute_each =
        (now.compute_time - before.compute_time) /
        static_cast<int64_t>(now.computed_assignments - before.computed_assignments);
  }
}

std::vector<NodeFigures> NodesOf(const TopReading& now, const TopReading* before) {
  std::map<std::string, const client::NodeInfo*> earlier;
  if (before != nullptr) {
    for (const client::NodeInfo& node : before->topology.nodes) {
      earlier[node.address] = &node;
    }
  }
  std::vector<NodeFigures> nodes;
  for (const client::NodeInfo& node : now.topology.nodes) {
    nodes.emplace_back().node = node;
    if (const auto found = earlier.find(node.address); found != earlier.end()) {
      SetRates(*found->second, absl::ToDoubleSeconds(now.nodes_at - before->nodes_at),
               &nodes.back());
    }
  }
  std::stable_sort(nodes.begin(), nodes.end(), [](const NodeFigures& a, const NodeFigures& b) {
    const auto rank = [](const NodeFigures& each) {
      return std::tuple(each.node.link == client::Link::kUp, -each.busy.value_or(0));
    };
    return rank(a) < rank(b);
  });
  return nodes;
}

std::map<uint32_t, const client::LayerLoad*> ByLayer(const client::Load& load) {
  std::map<uint32_t, const client::LayerLoad*> layers;
  for (const client::LayerLoad& layer : load.layers) {
    layers[layer.layer] = &layer;
  }
  return layers;
}

std::vector<LayerFigures> LayersOf(const TopReading& now, const TopReading* before) {
  const auto earlier = before == nullptr ? std::map<uint32_t, const client::LayerLoad*>()
                                         : ByLayer(before->since_start);
  const auto recent = ByLayer(now.recent);
  std::vector<LayerFigures> layers;
  for (const client::LayerLoad& load : now.since_start.layers) {
    LayerFigures& figures = layers.emplace_back();
    figures.layer = load.layer;
    figures.tokens = load.tokens;
    if (const auto found = earlier.find(load.layer); found != earlier.end()) {
      const double seconds = absl::ToDoubleSeconds(now.layers_at - before->layers_at);
      figures.tokens_per_second = RateOf(found->second->tokens, load.tokens, seconds);
      figures.busy = RateOf(found->second->node_time, load.node_time, seconds);
    }
    if (const auto found = recent.find(load.layer); found != recent.end()) {
      figures.max_violation = balance::MaxViolation(found->second->assignments);
      figures.compared_tokens = found->second->compared_tokens;
      figures.changed_tokens = found->second->changed_tokens;
    }
  }
  std::stable_sort(layers.begin(), layers.end(), [](const LayerFigures& a, const LayerFigures& b) {
    return std::tuple(-a.busy.value_or(0), -a.max_violation) <
           std::tuple(-b.busy.value_or(0), -b.max_violation);
  });
  return layers;
}

std::vector<ExpertFigures> ExpertsOf(const client::Load& load) {
  std::vector<std::pair<double, ExpertFigures>> hot;
  for (const client::LayerLoad& layer : load.layers) {
    double all = 0;
    for (const uint64_t count : layer.assignments) {
      all += static_cast<double>(count);
    }
    const double even = all / static_cast<double>(layer.assignments.size());
    for (size_t expert = 0; expert < layer.assignments.size(); ++expert) {
      const auto count = static_cast<double>(layer.assignments[expert]);
      if (count > even) {
        hot.push_back({count - even,
                       {layer.layer, static_cast<uint32_t>(expert), layer.assignments[expert],
                        count / even}});
      }
    }
  }
  std::stable_sort(hot.begin(), hot.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  hot.resize(std::min(hot.size(), kExperts));
  std::vector<ExpertFigures> experts;
  for (const auto& [surplus, figures] : hot) {
    experts.push_back(figures);
  }
  return experts;
}

std::vector<StageFigures> StagesOf(const std::vector<RequestTimes>& requests) {
  if (requests.empty()) {
    return {};
  }
  constexpr std::pair<const char*, absl::Duration RequestTimes::*> kStages[] = {
      {"queue", &RequestTimes::queue},
      {"route", &RequestTimes::route},
      {"nodes", &RequestTimes::nodes},
      {"combine", &RequestTimes::combine},
      {"all", &RequestTimes::all}};
  std::vector<StageFigures> stages;
  for (const auto& [name, stage] : kStages) {
    std::vector<double> seconds;
    for (const RequestTimes& request : requests) {
      seconds.push_back(absl::ToDoubleSeconds(request.*stage));
    }
    const auto at = [&seconds](double share) { return absl::Seconds(Percentile(seconds, share)); };
    stages.push_back({name, at(0.5), at(0.9), at(1)});
  }
  return stages;
}

// The router, or the one that counts for the mesh, was started again in between: what it counts may
// be more by now, and the difference says nothing.
bool BeganAgain(const TopReading& now, const TopReading& before) {
  return now.topology.revision < before.topology.revision ||
         now.topology.balance.term != before.topology.balance.term;
}

}  // namespace

TopFigures FiguresOf(const TopReading& now, const TopReading* before) {
  if (before != nullptr && BeganAgain(now, *before)) {
    before = nullptr;
  }
  TopFigures figures;
  if (before != nullptr) {
    figures.interval = now.layers_at - before->layers_at;
  }
  figures.window = now.recent.window;
  figures.nodes = NodesOf(now, before);
  figures.layers = LayersOf(now, before);
  for (const LayerFigures& layer : figures.layers) {
    if (layer.tokens_per_second.has_value()) {
      figures.tokens_per_second =
          std::max(figures.tokens_per_second.value_or(0), *layer.tokens_per_second);
      figures.layer_tokens_per_second =
          figures.layer_tokens_per_second.value_or(0) + *layer.tokens_per_second;
    }
  }
  figures.experts = ExpertsOf(now.recent);
  figures.stages = StagesOf(now.stages.requests);
  return figures;
}

}  // namespace expertmesh::command
