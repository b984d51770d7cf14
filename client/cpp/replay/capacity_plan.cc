#include "client/cpp/replay/capacity_plan.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "client/cpp/replay/latency_mixture.h"
#include "client/cpp/replay/layer_figures.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace expertmesh::replay {
namespace {

double BytesOfOneCopyEach(const CapacityQuestion& question) {
  double bytes = 0;
  for (size_t i = 0; i < question.layers.size(); ++i) {
    bytes += question.layers[i].num_experts * static_cast<double>(question.expert_bytes[i]);
  }
  return bytes;
}

absl::Status Validate(const CapacityQuestion& question, uint32_t nodes) {
  EXPERTMESH_CHECK(question.expert_bytes.size() == question.layers.size() &&
                   question.chances.size() == question.layers.size() && !question.speeds.empty());
  if (question.layers.empty()) {
    return absl::InvalidArgumentError("the model has no layers with experts");
  }
  if (nodes == 0 || nodes > kMaxSimulatedNodes) {
    return absl::InvalidArgumentError(absl::StrCat(nodes, " nodes; use 1 to ", kMaxSimulatedNodes));
  }
  if (question.node_memory_bytes == 0) {
    return absl::InvalidArgumentError("memory of a node is 0 bytes; use more");
  }
  if (!(question.batch_tokens >= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens of a batch are ", question.batch_tokens, "; use 1 or more"));
  }
  return ValidateServiceTimes(question.times);
}

balance::PlanningInput MakeInput(const CapacityQuestion& question, const MeshModel& mesh) {
  balance::PlanningInput input;
  for (size_t i = 0; i < question.layers.size(); ++i) {
    input.layers.push_back({.layer = question.layers[i].layer,
                            .expert_bytes = question.expert_bytes[i],
                            .loads = question.chances[i]});
  }
  for (uint32_t i = 0; i < mesh.nodes.size(); ++i) {
    balance::NodeToPlan node;
    node.node_id = SimulatedNodeId(i);
    node.capacity_bytes = question.node_memory_bytes;
    node.speed = mesh.nodes[i].speed / question.times.assignment_us;
    node.link_cost = question.times.row_us;
    input.nodes.push_back(std::move(node));
  }
  return input;
}

// What the nodes of a plan hold.
void CountCopies(const CapacityQuestion& question, const balance::PlacementPlan& plan,
                 CapacityAnswer* answer) {
  std::vector<uint64_t> bytes(answer->nodes);
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    for (const std::vector<balance::ExpertCopy>& copies : plan.layers[i].experts) {
      answer->copies += copies.size();
      for (const balance::ExpertCopy& copy : copies) {
        bytes[copy.node] += question.expert_bytes[i];
      }
    }
  }
  answer->node_bytes = *std::max_element(bytes.begin(), bytes.end());
}

// One batch through all layers.
void Measure(const CapacityQuestion& question, const MeshModel& mesh,
             const balance::PlacementPlan& plan, CapacityAnswer* answer) {
  const std::vector<bool> alive(mesh.nodes.size(), true);
  std::vector<double> busy_us(mesh.nodes.size());
  LayerFigures figures;
  std::vector<double> assignments;
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    assignments = question.chances[i];
    for (double& chance : assignments) {
      chance *= question.batch_tokens;
    }
    EvaluateLayer(mesh, alive, plan.layers[i], assignments, question.batch_tokens,
                  {{.tokens = question.batch_tokens, .batches = 1}}, &figures);
    for (size_t node = 0; node < busy_us.size(); ++node) {
      busy_us[node] += figures.busy_us[node];
    }
    LatencyMixture latency;
    latency.Add(1, figures.times.front().nodes);
    answer->batch_us += latency.Quantile(0.5);
  }
  const double busiest = *std::max_element(busy_us.begin(), busy_us.end());
  answer->tokens_per_second = busiest > 0 ? question.batch_tokens * 1e6 / busiest : 0;
}

}  // namespace

absl::StatusOr<CapacityAnswer> PlanCapacity(const CapacityQuestion& question, uint32_t nodes) {
  RETURN_IF_ERROR(Validate(question, nodes));
  MeshModel mesh;
  mesh.times = question.times;
  for (uint32_t i = 0; i < nodes; ++i) {
    mesh.nodes.push_back({.speed = question.speeds[i % question.speeds.size()]});
  }
  CapacityAnswer answer;
  answer.nodes = nodes;
  if (question.planner.min_copies > nodes) {
    answer.reason = absl::StrCat(question.planner.min_copies,
                                 " copies of an expert are on as many nodes; there are ", nodes);
    return answer;
  }
  absl::StatusOr<balance::PlanningResult> result =
      balance::PlanPlacement(MakeInput(question, mesh), question.planner);
  if (absl::IsResourceExhausted(result.status())) {
    answer.reason = std::string(result.status().message());
    return answer;
  }
  RETURN_IF_ERROR(result.status());
  answer.fits = true;
  const auto layers = static_cast<double>(question.layers.size());
  for (const balance::LayerForecast& layer : result->layers) {
    answer.fullest += layer.FullestOverMean() / layers;
    answer.fullest_worst = std::max(answer.fullest_worst, layer.FullestOverMean());
    answer.lower_bound += layer.mean > 0 ? layer.lower_bound / layer.mean / layers : 1 / layers;
  }
  const double needed = BytesOfOneCopyEach(question) * question.planner.min_copies;
  const double spare =
      static_cast<double>(nodes) * static_cast<double>(question.node_memory_bytes) - needed;
  uint64_t bytes_of_one = 0;
  for (const uint64_t bytes : question.expert_bytes) {
    bytes_of_one += bytes;
  }
  answer.spare_copies = std::max(0.0, std::floor(spare / static_cast<double>(bytes_of_one)));
  CountCopies(question, result->plan, &answer);
  Measure(question, mesh, result->plan, &answer);
  return answer;
}

absl::StatusOr<uint32_t> FewestNodes(const CapacityQuestion& question) {
  RETURN_IF_ERROR(Validate(question, 1));
  const double needed = BytesOfOneCopyEach(question) * question.planner.min_copies;
  const double least = std::ceil(needed / static_cast<double>(question.node_memory_bytes));
  const uint64_t largest =
      *std::max_element(question.expert_bytes.begin(), question.expert_bytes.end());
  if (least > kMaxSimulatedNodes || largest > question.node_memory_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        needed, " bytes of experts, up to ", largest, " each, need more than ", kMaxSimulatedNodes,
        " nodes of ", question.node_memory_bytes, " bytes; use larger nodes"));
  }
  // Whole experts leave a little of every node unused: a few more nodes than bytes alone ask for.
  for (auto nodes = static_cast<uint32_t>(std::max<double>(least, question.planner.min_copies));
       nodes <= kMaxSimulatedNodes; ++nodes) {
    ASSIGN_OR_RETURN(const CapacityAnswer answer, PlanCapacity(question, nodes));
    if (answer.fits) {
      return nodes;
    }
  }
  return absl::ResourceExhaustedError(absl::StrCat("no ", kMaxSimulatedNodes, " nodes of ",
                                                   question.node_memory_bytes,
                                                   " bytes have room for all experts"));
}

absl::StatusOr<uint32_t> NodesForSpeed(const CapacityQuestion& question, uint32_t fewest,
                                       double target) {
  const auto reaches = [&](uint32_t nodes) -> absl::StatusOr<bool> {
    ASSIGN_OR_RETURN(const CapacityAnswer answer, PlanCapacity(question, nodes));
    return answer.fits && answer.tokens_per_second >= target;
  };
  uint32_t below = fewest - 1;  // Does not reach it.
  uint32_t nodes = fewest;
  while (true) {
    ASSIGN_OR_RETURN(const bool reached, reaches(nodes));
    if (reached) {
      break;
    }
    if (nodes == kMaxSimulatedNodes) {
      return absl::ResourceExhaustedError(absl::StrCat(
          nodes, " nodes do not reach ", target, " tokens/s; use faster nodes, or larger batches"));
    }
    below = nodes;
    nodes = std::min(2 * nodes, kMaxSimulatedNodes);
  }
  while (nodes - below > 1) {
    const uint32_t middle = below + (nodes - below) / 2;
    ASSIGN_OR_RETURN(const bool reached, reaches(middle));
    (reached ? nodes : below) = middle;
  }
  return nodes;
}

}  // namespace expertmesh::replay
