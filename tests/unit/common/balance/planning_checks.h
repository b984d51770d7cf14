// What tests of the planner judge plans by, computed without any of its code.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_BALANCE_PLANNING_CHECKS_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_BALANCE_PLANNING_CHECKS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/balance/placement_planner.h"

namespace expertmesh::balance::testing {

using Copies = std::set<std::pair<uint32_t, uint32_t>>;  // (expert, node)

inline Copies HeldOf(const PlanningInput& input, uint32_t layer) {
  Copies held;
  for (uint32_t node = 0; node < input.nodes.size(); ++node) {
    for (const HeldExperts& of_layer : input.nodes[node].held) {
      for (const uint32_t expert : of_layer.experts) {
        if (of_layer.layer == layer) {
          held.emplace(expert, node);
        }
      }
    }
  }
  return held;
}

inline const LayerPlacement& PlacementOf(const PlanningResult& result, uint32_t layer) {
  return *std::find_if(result.plan.layers.begin(), result.plan.layers.end(),
                       [layer](const LayerPlacement& one) { return one.layer == layer; });
}

inline Copies PlannedOf(const PlanningResult& result, uint32_t layer) {
  Copies planned;
  const LayerPlacement& placement = PlacementOf(result, layer);
  for (uint32_t expert = 0; expert < placement.experts.size(); ++expert) {
    for (const ExpertCopy& copy : placement.experts[expert]) {
      planned.emplace(expert, copy.node);
    }
  }
  return planned;
}

// Copies under the present plan, as positions in the input's nodes. All are there, and held.
inline std::vector<std::vector<ExpertCopy>> Renumbered(const PlanningInput& input, uint32_t layer) {
  const std::vector<LayerPlacement>& layers = input.present.layers;
  std::vector<std::vector<ExpertCopy>> experts =
      std::find_if(layers.begin(), layers.end(), [layer](const LayerPlacement& one) {
        return one.layer == layer;
      })->experts;
  for (std::vector<ExpertCopy>& copies : experts) {
    for (ExpertCopy& copy : copies) {
      const auto holder = std::find_if(
          input.nodes.begin(), input.nodes.end(),
          [&](const NodeToPlan& node) { return node.node_id == input.present.nodes[copy.node]; });
      // A node that is not there any more held a copy without a share.
      copy.node = static_cast<uint32_t>(holder - input.nodes.begin());
    }
    std::erase_if(copies, [&](const ExpertCopy& copy) { return copy.node == input.nodes.size(); });
  }
  return experts;
}

inline double TimePerRow(const NodeToPlan& node) { return (1 / node.speed) + node.link_cost; }

// Level of the fullest node.
inline double FullestOf(const PlanningInput& input, const std::vector<double>& loads,
                        const LayerPlacement& placement) {
  std::vector<double> times(input.nodes.size());
  for (size_t expert = 0; expert < loads.size(); ++expert) {
    for (const ExpertCopy& copy : placement.experts[expert]) {
      times[copy.node] += loads[expert] * copy.share * TimePerRow(input.nodes[copy.node]);
    }
  }
  return *std::max_element(times.begin(), times.end());
}

inline size_t ZonesOf(const PlanningInput& input, const std::vector<ExpertCopy>& copies) {
  std::set<std::string> zones;
  for (const ExpertCopy& copy : copies) {
    zones.insert(input.nodes[copy.node].zone);
  }
  return zones.size();
}

inline std::string CheckCopiesOf(const PlanningInput& input, const PlannerOptions& options,
                                 const std::vector<ExpertCopy>& copies) {
  std::set<uint32_t> nodes;
  std::set<std::string> open_zones;
  double shares = 0;
  for (const ExpertCopy& copy : copies) {
    nodes.insert(copy.node);
    shares += copy.share;
    if (!(copy.share >= 0 && copy.share <= 1 + 1e-6f)) {
      return absl::StrCat("has a share of ", copy.share);
    }
  }
  for (const NodeToPlan& node : input.nodes) {
    if (node.accepts_copies) {
      open_zones.insert(node.zone);
    }
  }
  if (nodes.size() != copies.size()) {
    return "is twice on a node";
  }
  if (copies.size() < options.min_copies) {
    return absl::StrCat("has ", copies.size(), " copies");
  }
  if (options.max_copies != 0 && copies.size() > options.max_copies) {
    return absl::StrCat("has ", copies.size(), " copies");
  }
  if (!(std::fabs(shares - 1) <= 1e-5)) {
    return absl::StrCat("has shares of ", shares);
  }
  if (!std::is_sorted(copies.begin(), copies.end(),
                      [](const ExpertCopy& a, const ExpertCopy& b) { return a.node < b.node; })) {
    return "has copies out of order";
  }
  if (options.spread_zones &&
      ZonesOf(input, copies) < std::min<size_t>(options.min_copies, open_zones.size())) {
    return absl::StrCat("is in ", ZonesOf(input, copies), " zones");
  }
  return "";
}

inline std::string CheckNodes(const PlanningInput& input, const PlanningResult& result) {
  std::vector<uint64_t> bytes(input.nodes.size());
  for (const LayerToPlan& layer : input.layers) {
    const Copies held = HeldOf(input, layer.layer);
    std::vector<uint32_t> slots(input.nodes.size());
    for (const auto& [expert, node] : PlannedOf(result, layer.layer)) {
      const NodeToPlan& holder = input.nodes[node];
      bytes[node] += layer.expert_bytes;
      ++slots[node];
      if (!holder.accepts_copies && held.count({expert, node}) == 0) {
        return absl::StrCat("node ", node, " accepts no copies and gets expert ", expert);
      }
      if (holder.accepts_copies && holder.slots_per_layer > 0 &&
          slots[node] > holder.slots_per_layer) {
        return absl::StrCat("node ", node, " has no slot for expert ", expert);
      }
    }
  }
  for (size_t node = 0; node < input.nodes.size(); ++node) {
    if (input.nodes[node].accepts_copies && bytes[node] > input.nodes[node].capacity_bytes) {
      return absl::StrCat("node ", node, " has ", bytes[node], " bytes");
    }
  }
  return "";
}

inline std::string CheckMoves(const PlanningInput& input, const PlanningResult& result) {
  uint64_t loaded = 0;
  uint64_t freed = 0;
  for (uint32_t position = 0; position < input.layers.size(); ++position) {
    const LayerToPlan& layer = input.layers[position];
    Copies copies = HeldOf(input, layer.layer);
    for (const CopyMove& move : result.moves) {
      if (move.layer_position != position) {
        continue;
      }
      if (move.from != CopyMove::kNoNode) {
        freed += layer.expert_bytes;
        if (copies.erase({move.expert, move.from}) != 1) {
          return absl::StrCat("expert ", move.expert, " is freed where it is not");
        }
      }
      if (move.to != CopyMove::kNoNode) {
        loaded += layer.expert_bytes;
        if (!copies.emplace(move.expert, move.to).second) {
          return absl::StrCat("expert ", move.expert, " is loaded where it is");
        }
      }
    }
    if (copies != PlannedOf(result, layer.layer)) {
      return absl::StrCat("moves of layer ", layer.layer, " do not lead to its plan");
    }
  }
  if (loaded != result.bytes_loaded || freed != result.bytes_freed) {
    return absl::StrCat(loaded, " bytes loaded, ", freed, " freed");
  }
  return "";
}

inline std::string CheckForecasts(const PlanningInput& input, const PlanningResult& result) {
  double rates = 0;
  for (const NodeToPlan& node : input.nodes) {
    rates += 1 / TimePerRow(node);
  }
  for (size_t i = 0; i < input.layers.size(); ++i) {
    std::vector<double> loads = input.layers[i].loads;
    double sum = 0;
    for (const double load : loads) {
      sum += load;
    }
    if (sum == 0) {
      loads.assign(loads.size(), 1);
      sum = static_cast<double>(loads.size());
    }
    const LayerForecast& forecast = result.layers[i];
    const double fullest = FullestOf(input, loads, PlacementOf(result, input.layers[i].layer));
    // What is no number is not within either.
    if (!(std::fabs((fullest / forecast.fullest) - 1) <= 1e-5) ||
        !(std::fabs((sum / rates / forecast.mean) - 1) <= 1e-9)) {
      return absl::StrCat("layer ", i, " comes to ", fullest, ", said ", forecast.fullest,
                          ", mean ", sum / rates, ", said ", forecast.mean);
    }
    if (!(fullest >= forecast.lower_bound * (1 - 1e-5))) {
      return absl::StrCat("layer ", i, " comes to ", fullest, ", bound ", forecast.lower_bound);
    }
    if (!(fullest <= forecast.present_fullest * (1 + 1e-5))) {
      return absl::StrCat("layer ", i, " was better before: ", forecast.present_fullest);
    }
  }
  return "";
}

// Empty when the plan keeps what planner and plan promise.
inline std::string CheckPlan(const PlanningInput& input, const PlannerOptions& options,
                             const PlanningResult& result) {
  for (const LayerToPlan& layer : input.layers) {
    const LayerPlacement& placement = PlacementOf(result, layer.layer);
    if (placement.experts.size() != layer.loads.size()) {
      return "experts are missing";
    }
    for (size_t expert = 0; expert < layer.loads.size(); ++expert) {
      const std::string wrong = CheckCopiesOf(input, options, placement.experts[expert]);
      if (!wrong.empty()) {
        return absl::StrCat("expert ", expert, " of layer ", layer.layer, " ", wrong);
      }
    }
  }
  for (std::string (*check)(const PlanningInput&, const PlanningResult&) :
       {CheckNodes, CheckMoves, CheckForecasts}) {
    if (std::string wrong = check(input, result); !wrong.empty()) {
      return wrong;
    }
  }
  return "";
}

// The fullest node under the best shares that copies allow, exactly: the largest, over all sets of
// experts, of what they bring over what the nodes that hold one of them do (Hall, Ford, Fulkerson).
inline double LeastFullest(const std::vector<double>& loads, const std::vector<double>& rates,
                           const std::vector<uint32_t>& nodes_of_expert) {
  double fullest = 0;
  for (uint32_t set = 1; set < (1u << loads.size()); ++set) {
    double rows = 0;
    uint32_t nodes = 0;
    for (size_t expert = 0; expert < loads.size(); ++expert) {
      if ((set >> expert & 1) != 0) {
        rows += loads[expert];
        nodes |= nodes_of_expert[expert];
      }
    }
    double rate = 0;
    for (size_t node = 0; node < rates.size(); ++node) {
      rate += (nodes >> node & 1) != 0 ? rates[node] : 0;
    }
    fullest = std::max(fullest, rows / rate);
  }
  return fullest;
}

// The same under the best of all placements, each of which it looks at; infinite: there is none.
class BestPlacement {
 public:
  BestPlacement(std::vector<double> loads, std::vector<double> rates, std::vector<uint32_t> slots,
                int min_copies, int max_copies)
      : loads_(std::move(loads)),
        rates_(std::move(rates)),
        slots_(std::move(slots)),
        min_copies_(min_copies),
        max_copies_(max_copies) {}

  double Find() {
    Try();
    return best_;
  }

 private:
  void Try() {
    if (placed_.size() == loads_.size()) {
      best_ = std::min(best_, LeastFullest(loads_, rates_, placed_));
      return;
    }
    for (uint32_t nodes = 1; nodes < (1u << rates_.size()); ++nodes) {
      const int copies = __builtin_popcount(nodes);
      if (copies < min_copies_ || copies > max_copies_ || !Take(nodes)) {
        continue;
      }
      placed_.push_back(nodes);
      Try();
      placed_.pop_back();
      Give(nodes);
    }
  }
  bool Take(uint32_t nodes) {
    for (size_t node = 0; node < rates_.size(); ++node) {
      if ((nodes >> node & 1) != 0 && slots_[node] == 0) {
        return false;
      }
    }
    for (size_t node = 0; node < rates_.size(); ++node) {
      slots_[node] -= nodes >> node & 1;
    }
    return true;
  }
  void Give(uint32_t nodes) {
    for (size_t node = 0; node < rates_.size(); ++node) {
      slots_[node] += nodes >> node & 1;
    }
  }

  const std::vector<double> loads_;
  const std::vector<double> rates_;
  std::vector<uint32_t> slots_;
  const int min_copies_;
  const int max_copies_;
  std::vector<uint32_t> placed_;
  double best_ = std::numeric_limits<double>::infinity();
};

}  // namespace expertmesh::balance::testing

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_BALANCE_PLANNING_CHECKS_H_
