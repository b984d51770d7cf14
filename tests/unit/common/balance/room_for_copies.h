// Whether nodes have room for the copies that experts must have, by flow over all layers at once.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_BALANCE_ROOM_FOR_COPIES_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_BALANCE_ROOM_FOR_COPIES_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/balance/placement_planner.h"
#include "tests/unit/common/balance/planning_checks.h"

namespace expertmesh::balance::testing {

// Experts of all layers have the same bytes; then it is exact. A copy flows from its expert, over a
// zone, a node's slots of the layer and the node's bytes, to the sink: the first copies each over
// another zone, the others over any.
class RoomForCopies {
 public:
  RoomForCopies(const PlanningInput& input, const PlannerOptions& options)
      : input_(input), options_(options) {}

  bool IsEnough() {
    for (const NodeToPlan& node : input_.nodes) {
      nodes_.push_back(Vertex());
      Connect(nodes_.back(), kSink,
              node.accepts_copies ? node.capacity_bytes / input_.layers[0].expert_bytes : kMost);
      if (node.accepts_copies) {
        open_zones_.insert(node.zone);
      }
    }
    uint64_t copies = 0;
    for (const LayerToPlan& layer : input_.layers) {
      AddLayer(layer);
      copies += layer.loads.size() * options_.min_copies;
    }
    uint64_t placed = 0;
    while (placed < copies) {
      seen_.assign(edges_.size(), false);
      if (!Push(kSource)) {
        return false;
      }
      ++placed;
    }
    return true;
  }

 private:
  static constexpr size_t kSource = 0;
  static constexpr size_t kSink = 1;
  static constexpr uint64_t kMost = 1'000'000;
  struct Edge {
    size_t to = 0;
    uint64_t room = 0;
    size_t back = 0;
  };

  size_t Vertex() {
    edges_.emplace_back();
    return edges_.size() - 1;
  }
  void Connect(size_t from, size_t to, uint64_t room) {
    edges_[from].push_back({to, room, edges_[to].size()});
    edges_[to].push_back({from, 0, edges_[from].size() - 1});
  }

  void AddLayer(const LayerToPlan& layer) {
    const Copies held = HeldOf(input_, layer.layer);
    std::vector<size_t> slots;
    for (size_t node = 0; node < input_.nodes.size(); ++node) {
      const NodeToPlan& of = input_.nodes[node];
      slots.push_back(Vertex());
      Connect(slots.back(), nodes_[node],
              of.accepts_copies && of.slots_per_layer > 0 ? of.slots_per_layer : kMost);
    }
    const auto spread = options_.spread_zones
                            ? std::min<uint64_t>(options_.min_copies, open_zones_.size())
                            : uint64_t{0};
    for (uint32_t expert = 0; expert < layer.loads.size(); ++expert) {
      const size_t first = Vertex();
      const size_t others = Vertex();
      Connect(kSource, first, spread);
      Connect(kSource, others, options_.min_copies - spread);
      std::map<std::string, size_t> zones;
      for (uint32_t node = 0; node < input_.nodes.size(); ++node) {
        const NodeToPlan& of = input_.nodes[node];
        if (!of.accepts_copies && !held.contains({expert, node})) {
          continue;
        }
        if (!zones.contains(of.zone)) {
          const size_t zone = Vertex();
          zones[of.zone] = zone;
          Connect(first, zone, 1);
          Connect(others, zone, kMost);
        }
        Connect(zones[of.zone], slots[node], 1);
      }
    }
  }

  bool Push(size_t vertex) {
    if (vertex == kSink) {
      return true;
    }
    seen_[vertex] = true;
    for (Edge& edge : edges_[vertex]) {
      if (edge.room > 0 && !seen_[edge.to] && Push(edge.to)) {
        --edge.room;
        ++edges_[edge.to][edge.back].room;
        return true;
      }
    }
    return false;
  }

  const PlanningInput& input_;
  const PlannerOptions& options_;
  std::vector<std::vector<Edge>> edges_ = std::vector<std::vector<Edge>>(2);
  std::vector<size_t> nodes_;
  std::set<std::string> open_zones_;
  std::vector<bool> seen_;
};

}  // namespace expertmesh::balance::testing

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_BALANCE_ROOM_FOR_COPIES_H_
