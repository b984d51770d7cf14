// Random inputs and options of the planner.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_BALANCE_RANDOM_PLANNING_INPUT_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_BALANCE_RANDOM_PLANNING_INPUT_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/balance/placement_planner.h"

namespace expertmesh::balance::testing {

class Randomly {
 public:
  explicit Randomly(uint32_t seed) : random_(seed) {}

  uint32_t Int(uint32_t low, uint32_t high) {
    return std::uniform_int_distribution<uint32_t>(low, high)(random_);
  }
  double Real(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random_);
  }
  bool Chance(double share) { return Real(0, 1) < share; }

  // Several kinds: alike, skewed, with zeros, in large or small units.
  std::vector<double> Loads(uint32_t experts) {
    const uint32_t kind = Int(0, 4);
    std::vector<double> loads(experts);
    for (uint32_t i = 0; i < experts; ++i) {
      loads[i] = kind == 0   ? 1
                 : kind == 1 ? std::exp(Real(-4, 4))
                 : kind == 2 ? (Chance(0.5) ? 0 : Real(0, 1))
                 : kind == 3 ? 1e240 / (i + 1)
                             : Real(0, 1) * 1e-300;
    }
    std::shuffle(loads.begin(), loads.end(), random_);
    return loads;
  }

  PlanningInput Input(uint32_t min_copies) {
    PlanningInput input;
    const uint32_t layers = Int(1, 4);
    const uint32_t experts = Int(1, 40);
    const uint64_t bytes = Int(1, 1000);
    for (uint32_t i = 0; i < layers; ++i) {
      input.layers.push_back({(layers - i) * 3, bytes, Loads(experts)});
    }
    const uint32_t nodes = Int(min_copies, 12);
    const uint32_t zones = Int(1, 3);
    const uint64_t needed = uint64_t{layers} * experts * bytes * min_copies;
    const bool alike = Chance(0.5);
    for (uint32_t i = 0; i < nodes; ++i) {
      NodeToPlan& node = input.nodes.emplace_back();
      node.node_id = absl::StrCat("node-", i);
      node.zone = absl::StrCat("zone-", i % zones);
      node.capacity_bytes =
          (needed / nodes) + (layers * bytes * Int(1, 6)) + (alike ? 0 : Int(0, 1000));
      node.speed = alike ? 1 : Real(0.5, 2);
      node.link_cost = alike ? 0 : Real(0, 0.3);
      if (Chance(0.2)) {
        node.slots_per_layer = Int(1, experts);
      }
    }
    return input;
  }

  // Nodes hold what they like, more than they have room for among it, some accept no copies, and
  // the present plan, if there is one, shares experts as it likes.
  void HoldAnything(PlanningInput* input) {
    input->present = {};
    const bool has_plan = Chance(0.5);
    for (NodeToPlan& node : input->nodes) {
      node.held.clear();
      node.accepts_copies = Chance(0.8);
      const double share = Chance(0.3) ? 1 : Real(0, 1);
      for (const LayerToPlan& layer : input->layers) {
        HeldExperts& held = node.held.emplace_back();
        held.layer = layer.layer;
        for (uint32_t expert = 0; expert < layer.loads.size(); ++expert) {
          if (Chance(share)) {
            held.experts.push_back(expert);
          }
        }
      }
      input->present.nodes.push_back(node.node_id);
    }
    for (const LayerToPlan& layer : input->layers) {
      if (has_plan) {
        input->present.layers.push_back(ShareHeld(*input, layer));
      }
    }
  }

  PlannerOptions Options() {
    PlannerOptions options;
    options.min_copies = Chance(0.6) ? 1 : Int(1, 3);
    options.max_copies = Chance(0.5) ? 0 : options.min_copies + Int(0, 4);
    options.spread_zones = Chance(0.7);
    options.tolerance = Chance(0.5) ? 0.001 : 0;
    return options;
  }

  // The same, with what keeps plans from changing much.
  PlannerOptions OptionsThatHoldBack(const PlanningInput& input) {
    PlannerOptions options = Options();
    options.hysteresis = Chance(0.3) ? 1 : Chance(0.5) ? 0 : Real(0, 0.3);
    if (Chance(0.5)) {
      const uint64_t experts = input.layers.size() * input.layers[0].loads.size();
      options.byte_budget = experts * input.layers[0].expert_bytes * Int(0, 8) / 8;
    }
    options.bytes_per_second = Chance(0.5) ? 0 : 1000;
    return options;
  }

 private:
  LayerPlacement ShareHeld(const PlanningInput& input, const LayerToPlan& layer) {
    LayerPlacement placement;
    placement.layer = layer.layer;
    placement.experts.resize(layer.loads.size());
    for (uint32_t node = 0; node < input.nodes.size(); ++node) {
      for (const HeldExperts& held : input.nodes[node].held) {
        for (const uint32_t expert : held.experts) {
          if (held.layer == layer.layer && Chance(0.8)) {
            placement.experts[expert].push_back({node, static_cast<float>(Real(0, 1))});
          }
        }
      }
    }
    for (std::vector<ExpertCopy>& copies : placement.experts) {
      float sum = 0;
      for (const ExpertCopy& copy : copies) {
        sum += copy.share;
      }
      for (ExpertCopy& copy : copies) {
        copy.share /= std::max(sum, 1e-6f);
      }
    }
    return placement;
  }

  std::mt19937 random_;
};

}  // namespace expertmesh::balance::testing

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_BALANCE_RANDOM_PLANNING_INPUT_H_
