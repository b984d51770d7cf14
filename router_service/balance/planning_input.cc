#include "router_service/balance/planning_input.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace expertmesh::balance_control {
namespace {

// Assignments that a node must have computed before its speed is believed.
constexpr uint64_t kMeasuredAssignments = 1000;

using Held = std::map<uint32_t, std::vector<uint32_t>>;

// Whole experts that are used there, by layer; parameters of everything that it holds.
Held HeldBy(const SteeredModel& model, const v1::TopologyNode& node, double* parameters) {
  std::set<std::pair<uint32_t, uint32_t>> damaged;
  for (const v1::DamagedExperts& entry : node.damaged()) {
    for (const uint32_t expert : entry.experts()) {
      damaged.emplace(entry.layer(), expert);
    }
  }
  Held held;
  *parameters = 0;
  for (const v1::HostedExperts& hosted : node.description().hosted()) {
    const auto layer = model.layers.find(hosted.layer());
    if (layer == model.layers.end()) {
      continue;
    }
    for (const uint32_t expert : hosted.experts()) {
      if (expert > layer->second.num_experts) {
        continue;  // There is no such expert.
      }
      const bool shared = expert == layer->second.num_experts;  // Stays where it is.
      *parameters += static_cast<double>(shared ? layer->second.shared_parameters
                                                : layer->second.expert_parameters) /
                     std::max<uint32_t>(hosted.slice_count(), 1);
      if (!shared && hosted.slice_count() == 1 && !damaged.contains({hosted.layer(), expert})) {
        held[hosted.layer()].push_back(expert);
      }
    }
  }
  return held;
}

struct UsedNode {
  const v1::TopologyNode* node = nullptr;
  Held held;
  double parameters = 0;
  bool drains = false;
};

// Leaves in `held` what `present`, unless it is null, has on the node; layers that it does not
// speak of stay as they are.
void KeepPlanned(const balance::PlacementPlan* present, const std::string& node_id, Held* held) {
  if (present == nullptr) {
    return;
  }
  for (const balance::LayerPlacement& layer : present->layers) {
    const auto found = held->find(layer.layer);
    if (found == held->end()) {
      continue;
    }
    std::erase_if(found->second, [&](uint32_t expert) {
      return expert >= layer.experts.size() ||
             std::none_of(layer.experts[expert].begin(), layer.experts[expert].end(),
                          [&](const balance::ExpertCopy& copy) {
                            return present->nodes[copy.node] == node_id;
                          });
    });
  }
}

// Nodes that are up, and after them those that drain, unless one that is up has their name: it
// replaces them.
std::vector<UsedNode> NodesToPlan(const SteeredModel& model, const v1::Topology& topology,
                                  const balance::PlacementPlan* present, DrainingNodes draining) {
  std::vector<UsedNode> nodes;
  const auto add = [&](const v1::TopologyNode& node) -> UsedNode& {
    UsedNode& used = nodes.emplace_back();
    used.node = &node;
    used.held = HeldBy(model, node, &used.parameters);
    return used;
  };
  std::set<std::string> names;
  for (const v1::TopologyNode& node : topology.nodes()) {
    if (node.link() == v1::NODE_LINK_UP) {
      add(node);
      names.insert(node.description().node_id());
    }
  }
  if (nodes.empty() || draining == DrainingNodes::kLeaveOut) {
    return nodes;
  }
  for (const v1::TopologyNode& node : topology.nodes()) {
    const std::string& node_id = node.description().node_id();
    if (node.link() == v1::NODE_LINK_DRAINING && names.insert(node_id).second) {
      UsedNode& used = add(node);
      used.drains = true;
      KeepPlanned(present, node_id, &used.held);
    }
  }
  return nodes;
}

// Bytes of a parameter, on the node that has the largest.
double BytesPerParameter(const std::vector<UsedNode>& nodes) {
  double most = 0;
  for (const UsedNode& used : nodes) {
    if (used.parameters > 0) {
      most = std::max(most, static_cast<double>(used.node->description().memory().weights_bytes()) /
                                used.parameters);
    }
  }
  return most > 0 ? most : sizeof(float);
}

struct Speeds {
  // As shares of the mean; what is not measured yet is as fast as the others.
  std::vector<double> of_nodes;
  // Assignments in a microsecond; 0: no node is measured.
  double mean = 0;
};

Speeds MeasuredSpeeds(const std::vector<UsedNode>& nodes) {
  Speeds result;
  std::vector<double>& speeds = result.of_nodes;
  double sum = 0;
  size_t measured = 0;
  for (const UsedNode& used : nodes) {
    const bool known =
        used.node->computed_assignments() >= kMeasuredAssignments && used.node->compute_us() > 0;
    speeds.push_back(known ? static_cast<double>(used.node->computed_assignments()) /
                                 static_cast<double>(used.node->compute_us())
                           : 0);
    sum += speeds.back();
    measured += known ? 1 : 0;
  }
  result.mean = measured > 0 ? sum / static_cast<double>(measured) : 0;
  for (double& speed : speeds) {
    speed = speed > 0 ? speed / result.mean : 1;
  }
  return result;
}

std::vector<balance::LayerToPlan> LayersToPlan(const SteeredModel& model, const LoadCounts& loads,
                                               uint64_t min_tokens, double bytes_per_parameter) {
  std::vector<balance::LayerToPlan> layers;
  for (const auto& [index, layer] : model.layers) {
    const auto counted = loads.find(index);
    if ((counted == loads.end() ? 0 : counted->second.tokens) < min_tokens) {
      continue;
    }
    balance::LayerToPlan& planned = layers.emplace_back();
    planned.layer = index;
    planned.expert_bytes =
        static_cast<uint64_t>(static_cast<double>(layer.expert_parameters) * bytes_per_parameter);
    planned.loads.assign(layer.num_experts, 0);
    if (counted != loads.end()) {
      planned.loads.assign(counted->second.assignments.begin(), counted->second.assignments.end());
    }
  }
  return layers;
}

// But for its speed and its link.
balance::NodeToPlan MakeNode(const UsedNode& used, const std::vector<balance::LayerToPlan>& layers,
                             double bytes_per_parameter) {
  balance::NodeToPlan node;
  node.node_id = used.node->description().node_id();
  node.zone = used.node->description().zone();
  node.accepts_copies = !used.drains;
  uint64_t planned = 0;
  for (const balance::LayerToPlan& layer : layers) {
    if (const auto held = used.held.find(layer.layer); held != used.held.end()) {
      node.held.push_back({layer.layer, held->second});
      planned += held->second.size() * layer.expert_bytes;
    }
  }
  const auto all = static_cast<uint64_t>(used.parameters * bytes_per_parameter);
  const uint64_t others = all > planned ? all - planned : 0;
  const uint64_t limit = used.node->description().memory().limit_bytes();
  node.capacity_bytes = planned;
  if (limit > others) {
    node.capacity_bytes = std::max(limit - others, planned);
  }
  return node;
}

// What the expert with the fewest copies has.
uint32_t FewestCopies(const balance::PlanningInput& input) {
  uint64_t fewest = input.nodes.size();
  for (const balance::LayerToPlan& layer : input.layers) {
    std::vector<uint64_t> copies(layer.loads.size());
    for (const balance::NodeToPlan& node : input.nodes) {
      for (const balance::HeldExperts& held : node.held) {
        if (held.layer == layer.layer) {
          for (const uint32_t expert : held.experts) {
            ++copies[expert];
          }
        }
      }
    }
    fewest = std::min(fewest, *std::min_element(copies.begin(), copies.end()));
  }
  return static_cast<uint32_t>(std::max<uint64_t>(fewest, 1));
}

// What `plan` says of `layers`.
balance::PlacementPlan OnlyLayers(const balance::PlacementPlan& plan,
                                  const std::vector<balance::LayerToPlan>& layers) {
  balance::PlacementPlan some;
  some.nodes = plan.nodes;
  for (const balance::LayerPlacement& placed : plan.layers) {
    for (const balance::LayerToPlan& layer : layers) {
      if (layer.layer == placed.layer) {
        some.layers.push_back(placed);
      }
    }
  }
  return some;
}

}  // namespace

std::string AwaitedNode(const v1::Topology& topology) {
  for (const v1::TopologyNode& node : topology.nodes()) {
    const char* why = nullptr;
    if (node.link() == v1::NODE_LINK_DOWN) {
      why = " is down: waits until it is back";
    } else if (node.link() == v1::NODE_LINK_EJECTED) {
      why = " is ejected: waits until it is used again";
    } else if (node.link() == v1::NODE_LINK_UP &&
               node.description().state() == v1::NODE_STATE_LOADING) {
      why = " loads what its flags say: waits until it has";
    }
    if (why != nullptr) {
      return absl::StrCat("node ", node.address(), why, ", or no longer among --nodes; ",
                          "ApplyPlacement does not wait");
    }
  }
  return "";
}

absl::StatusOr<PlanningQuestion> MakePlanningQuestion(
    const SteeredModel& model, const v1::Topology& topology, const LoadCounts& loads,
    const balance::PlacementPlan* present, const PlacementPolicy& policy, DrainingNodes draining) {
  const std::vector<UsedNode> nodes = NodesToPlan(model, topology, present, draining);
  if (nodes.empty()) {
    return absl::UnavailableError("no node is up: there is nothing to plan with");
  }
  const double bytes_per_parameter = BytesPerParameter(nodes);
  PlanningQuestion question;
  question.input.layers = LayersToPlan(model, loads, policy.min_tokens, bytes_per_parameter);
  if (question.input.layers.empty()) {
    return absl::UnavailableError(absl::StrCat("no layer has had ", policy.min_tokens,
                                               " tokens of late: waits for more (min_tokens)"));
  }
  const Speeds speeds = MeasuredSpeeds(nodes);
  for (size_t i = 0; i < nodes.size(); ++i) {
    balance::NodeToPlan& node = question.input.nodes.emplace_back(
        MakeNode(nodes[i], question.input.layers, bytes_per_parameter));
    // The unit of time is what the mean node takes for an assignment: so levels are in assignments.
    node.speed = speeds.of_nodes[i];
    node.link_cost = nodes[i].node->link_us_per_assignment() * speeds.mean;
  }
  if (present != nullptr) {
    question.input.present = OnlyLayers(*present, question.input.layers);
  }
  question.options.min_copies =
      policy.min_copies > 0 ? policy.min_copies : FewestCopies(question.input);
  if (policy.min_copies == 0 && policy.max_copies > 0) {
    question.options.min_copies = std::min(question.options.min_copies, policy.max_copies);
  }
  question.options.max_copies = policy.max_copies;
  question.options.hysteresis = policy.hysteresis;
  if (policy.byte_budget > 0) {
    question.options.byte_budget = policy.byte_budget;
  }
  return question;
}

double LoadRate(const moves::MoverOptions& options, size_t nodes) {
  const double all = static_cast<double>(options.bytes_per_second);
  const double each = static_cast<double>(options.node_bytes_per_second);
  const double of_nodes = each * static_cast<double>(nodes);
  return all == 0 || each == 0 ? std::max(all, of_nodes) : std::min(all, of_nodes);
}

balance::PlacementPlan WithUnplannedLayers(balance::PlacementPlan plan,
                                           const balance::PlacementPlan* present) {
  if (present == nullptr) {
    return plan;
  }
  std::map<std::string, uint32_t> position;
  for (uint32_t i = 0; i < plan.nodes.size(); ++i) {
    position[plan.nodes[i]] = i;
  }
  std::map<uint32_t, balance::LayerPlacement> layers;
  for (balance::LayerPlacement& layer : plan.layers) {
    const uint32_t index = layer.layer;
    layers[index] = std::move(layer);
  }
  for (const balance::LayerPlacement& kept : present->layers) {
    if (layers.contains(kept.layer)) {
      continue;
    }
    balance::LayerPlacement layer = kept;
    for (std::vector<balance::ExpertCopy>& copies : layer.experts) {
      for (balance::ExpertCopy& copy : copies) {
        const std::string& id = present->nodes[copy.node];
        const auto [known, fresh] = position.emplace(id, static_cast<uint32_t>(plan.nodes.size()));
        if (fresh) {
          plan.nodes.push_back(id);
        }
        copy.node = known->second;
      }
      std::sort(copies.begin(), copies.end(),
                [](const auto& a, const auto& b) { return a.node < b.node; });
    }
    layers[kept.layer] = std::move(layer);
  }
  plan.layers.clear();
  for (auto& [index, layer] : layers) {
    plan.layers.push_back(std::move(layer));
  }
  return plan;
}

}  // namespace expertmesh::balance_control
