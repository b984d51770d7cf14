#include "common/balance/planning_input_check.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

namespace expertmesh::balance {
namespace {

// Largest speed and cost, so that what is made of them is finite.
constexpr double kLargest = 1e9;
// And the largest sum of loads.
constexpr double kMostLoad = 1e250;

// Experts of a layer by its index.
using ExpertsOfLayers = absl::flat_hash_map<uint32_t, size_t>;

absl::Status Refused(absl::string_view field, const absl::AlphaNum& value,
                     absl::string_view remedy) {
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; ", remedy));
}

bool IsShare(double value) { return value >= 0 && value <= 1; }

absl::Status CheckOptions(const PlannerOptions& options, size_t nodes) {
  if (options.min_copies == 0 || options.min_copies > nodes) {
    return Refused("min_copies", options.min_copies,
                   absl::StrCat("use 1 to the number of nodes, which is ", nodes));
  }
  if (options.max_copies != 0 && options.max_copies < options.min_copies) {
    return Refused("max_copies", options.max_copies,
                   absl::StrCat("use 0, or min_copies (", options.min_copies, ") or more"));
  }
  if (!IsShare(options.hysteresis)) {
    return Refused("hysteresis", options.hysteresis, "use 0 to 1");
  }
  if (!IsShare(options.tolerance)) {
    return Refused("tolerance", options.tolerance, "use 0 to 1");
  }
  if (!(options.bytes_per_second >= 0) || std::isinf(options.bytes_per_second)) {
    return Refused("bytes_per_second", options.bytes_per_second, "use 0 or a number above 0");
  }
  if (options.seconds_budget.has_value()) {
    if (!(*options.seconds_budget >= 0)) {
      return Refused("seconds_budget", *options.seconds_budget, "use 0 or more");
    }
    if (options.bytes_per_second == 0) {
      return Refused("bytes_per_second", 0, "seconds_budget needs it: use a number above 0");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLayers(const std::vector<LayerToPlan>& layers, ExpertsOfLayers* experts) {
  if (layers.empty()) {
    return Refused("layers", "empty", "name one layer or more");
  }
  for (const LayerToPlan& layer : layers) {
    const std::string where = absl::StrCat("of layer ", layer.layer);
    if (!experts->emplace(layer.layer, layer.loads.size()).second) {
      return Refused("layer", layer.layer, "it comes twice: name each layer once");
    }
    if (layer.expert_bytes == 0) {
      return Refused(absl::StrCat("expert_bytes ", where), 0, "use 1 or more");
    }
    if (layer.loads.empty()) {
      return Refused(absl::StrCat("loads ", where), "empty", "give one for each expert");
    }
    double sum = 0;
    for (size_t expert = 0; expert < layer.loads.size(); ++expert) {
      sum += layer.loads[expert];
      if (!(layer.loads[expert] >= 0 && sum <= kMostLoad)) {
        return Refused(absl::StrCat("load of expert ", expert, " ", where), layer.loads[expert],
                       absl::StrCat("use a number of 0 or more, in all at most ", kMostLoad));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckExperts(absl::string_view what, uint32_t layer, const ExpertsOfLayers& experts,
                          size_t* count) {
  const auto known = experts.find(layer);
  if (known == experts.end()) {
    return Refused(what, layer, "layers has no such layer: add it or leave it out here");
  }
  *count = known->second;
  return absl::OkStatus();
}

absl::Status CheckHeld(const NodeToPlan& node, const ExpertsOfLayers& experts) {
  absl::flat_hash_set<uint32_t> layers;
  std::vector<bool> seen;
  for (const HeldExperts& held : node.held) {
    size_t count = 0;
    const std::string what = absl::StrCat("layer that node '", node.node_id, "' holds");
    if (absl::Status status = CheckExperts(what, held.layer, experts, &count); !status.ok()) {
      return status;
    }
    if (!layers.insert(held.layer).second) {
      return Refused(what, held.layer, "it comes twice: name each layer once");
    }
    seen.assign(count, false);
    for (const uint32_t expert : held.experts) {
      const std::string which =
          absl::StrCat("expert of layer ", held.layer, " that node '", node.node_id, "' holds");
      if (expert >= count) {
        return Refused(which, expert, absl::StrCat("use 0 to ", count - 1));
      }
      if (seen[expert]) {
        return Refused(which, expert, "it comes twice: name each expert once");
      }
      seen[expert] = true;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckNodes(const std::vector<NodeToPlan>& nodes, const ExpertsOfLayers& experts) {
  absl::flat_hash_set<absl::string_view> ids;
  for (const NodeToPlan& node : nodes) {
    if (node.node_id.empty() || !ids.insert(node.node_id).second) {
      return Refused("node_id", absl::StrCat("'", node.node_id, "'"),
                     node.node_id.empty() ? "name every node" : "it comes twice: name each once");
    }
    if (!(node.speed >= 1 / kLargest && node.speed <= kLargest)) {
      return Refused(absl::StrCat("speed of node '", node.node_id, "'"), node.speed,
                     absl::StrCat("use ", 1 / kLargest, " to ", kLargest));
    }
    if (!(node.link_cost >= 0 && node.link_cost <= kLargest)) {
      return Refused(absl::StrCat("link_cost of node '", node.node_id, "'"), node.link_cost,
                     absl::StrCat("use 0 to ", kLargest));
    }
    if (absl::Status status = CheckHeld(node, experts); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckCopies(const PlacementPlan& present, const LayerPlacement& layer) {
  std::vector<size_t> holder(present.nodes.size(), layer.experts.size());
  for (size_t expert = 0; expert < layer.experts.size(); ++expert) {
    for (const ExpertCopy& copy : layer.experts[expert]) {
      const std::string where =
          absl::StrCat(" of expert ", expert, " of present.layers ", layer.layer);
      if (copy.node >= present.nodes.size()) {
        return Refused(
            absl::StrCat("node", where), copy.node,
            absl::StrCat("use a position in present.nodes, below ", present.nodes.size()));
      }
      if (!IsShare(copy.share)) {
        return Refused(absl::StrCat("share", where), copy.share, "use 0 to 1");
      }
      if (holder[copy.node] == expert) {
        return Refused(absl::StrCat("node", where), copy.node,
                       "it comes twice: a node holds an expert once");
      }
      holder[copy.node] = expert;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPresent(const PlacementPlan& present, const ExpertsOfLayers& experts) {
  absl::flat_hash_set<absl::string_view> ids;
  for (const std::string& id : present.nodes) {
    if (!ids.insert(id).second) {
      return Refused("present.nodes", absl::StrCat("'", id, "'"),
                     "it comes twice: name each node once");
    }
  }
  absl::flat_hash_set<uint32_t> layers;
  for (const LayerPlacement& layer : present.layers) {
    size_t count = 0;
    if (absl::Status status = CheckExperts("present.layers", layer.layer, experts, &count);
        !status.ok()) {
      return status;
    }
    if (!layers.insert(layer.layer).second) {
      return Refused("present.layers", layer.layer, "it comes twice: name each layer once");
    }
    if (layer.experts.size() != count) {
      return Refused(absl::StrCat("number of experts of present.layers ", layer.layer),
                     layer.experts.size(), absl::StrCat("use one for each load, ", count));
    }
    if (absl::Status status = CheckCopies(present, layer); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPlanningInput(const PlanningInput& input, const PlannerOptions& options) {
  if (input.nodes.empty()) {
    return Refused("nodes", "empty", "name one node or more");
  }
  ExpertsOfLayers experts;
  for (const auto& check :
       {CheckOptions(options, input.nodes.size()), CheckLayers(input.layers, &experts)}) {
    if (!check.ok()) {
      return check;
    }
  }
  if (absl::Status status = CheckNodes(input.nodes, experts); !status.ok()) {
    return status;
  }
  return CheckPresent(input.present, experts);
}

}  // namespace expertmesh::balance
