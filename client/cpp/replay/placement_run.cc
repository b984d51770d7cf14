#include "client/cpp/replay/placement_run.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace expertmesh::replay {
namespace {

bool Holds(const std::vector<balance::ExpertCopy>& copies, uint32_t node) {
  return std::any_of(copies.begin(), copies.end(),
                     [node](const balance::ExpertCopy& copy) { return copy.node == node; });
}

}  // namespace

PlacementRun::PlacementRun(const MeshModel& mesh, absl::Span<const balance::RecordedLayer> layers)
    : mesh_(mesh), layers_(FirstPlacement(mesh, layers)) {
  for (uint32_t i = 0; i < mesh.nodes.size(); ++i) {
    alive_.push_back(mesh.nodes[i].present);
    if (mesh.nodes[i].present) {
      alive_nodes_.push_back(i);
    }
  }
}

void PlacementRun::Fail(uint32_t node) {
  if (!alive_[node]) {
    return;
  }
  alive_[node] = false;
  std::erase(alive_nodes_, node);
  for (balance::LayerPlacement& layer : layers_) {
    for (std::vector<balance::ExpertCopy>& copies : layer.experts) {
      std::erase_if(copies, [node](const balance::ExpertCopy& copy) { return copy.node == node; });
    }
  }
  pending_.clear();
}

void PlacementRun::Join(uint32_t node) {
  if (!alive_[node]) {
    alive_[node] = true;
    alive_nodes_.insert(std::lower_bound(alive_nodes_.begin(), alive_nodes_.end(), node), node);
  }
}

void PlacementRun::Settle(double now_s) {
  std::erase_if(pending_, [this, now_s](Pending& pending) {
    if (pending.ready_s > now_s) {
      return false;
    }
    layers_[pending.layer] = std::move(pending.placement);
    return true;
  });
}

uint32_t PlacementRun::nodes() const { return static_cast<uint32_t>(alive_nodes_.size()); }

uint64_t PlacementRun::copies() const {
  uint64_t copies = 0;
  for (const balance::LayerPlacement& layer : layers_) {
    for (const std::vector<balance::ExpertCopy>& of_expert : layer.experts) {
      copies += of_expert.size();
    }
  }
  return copies;
}

balance::PlanningInput PlacementRun::MakeInput(
    const std::vector<std::vector<double>>& loads) const {
  balance::PlanningInput input;
  std::vector<uint32_t> position(mesh_.nodes.size());
  for (const uint32_t node : alive_nodes_) {
    position[node] = static_cast<uint32_t>(input.nodes.size());
    balance::NodeToPlan planned;
    planned.node_id = SimulatedNodeId(node);
    planned.capacity_bytes = mesh_.node_memory_bytes;
    // As assignments in a microsecond: the link's time is counted in the same unit.
    planned.speed = mesh_.nodes[node].speed / mesh_.times.assignment_us;
    planned.link_cost = mesh_.times.row_us * mesh_.nodes[node].link;
    input.nodes.push_back(std::move(planned));
    input.present.nodes.push_back(SimulatedNodeId(node));
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    input.layers.push_back(
        {.layer = layers_[i].layer, .expert_bytes = mesh_.expert_bytes[i], .loads = loads[i]});
    balance::LayerPlacement present = layers_[i];
    for (std::vector<balance::ExpertCopy>& copies : present.experts) {
      for (balance::ExpertCopy& copy : copies) {
        copy.node = position[copy.node];
      }
    }
    input.present.layers.push_back(std::move(present));
  }
  balance::HoldCopiesOf(input.present, &input.nodes);
  return input;
}

balance::LayerPlacement PlacementRun::WithNodes(const balance::LayerPlacement& planned) const {
  balance::LayerPlacement placement = planned;
  for (std::vector<balance::ExpertCopy>& copies : placement.experts) {
    for (balance::ExpertCopy& copy : copies) {
      copy.node = alive_nodes_[copy.node];
    }
  }
  return placement;
}

void PlacementRun::Begin(const balance::LayerPlacement& planned, size_t layer,
                         std::vector<double>* free_at, Moves* moves) {
  Pending pending = {.layer = layer, .placement = WithNodes(planned), .ready_s = 0};
  const double load_s =
      static_cast<double>(mesh_.expert_bytes[layer]) / mesh_.load_bytes_per_second;
  for (size_t expert = 0; expert < pending.placement.experts.size(); ++expert) {
    for (const balance::ExpertCopy& copy : pending.placement.experts[expert]) {
      if (!Holds(layers_[layer].experts[expert], copy.node)) {
        ++moves->copies;
        moves->bytes += mesh_.expert_bytes[layer];
        (*free_at)[copy.node] += load_s;
        pending.ready_s = std::max(pending.ready_s, (*free_at)[copy.node]);
      }
    }
  }
  if (pending.placement != layers_[layer]) {
    pending_.push_back(std::move(pending));
  }
}

absl::StatusOr<Moves> PlacementRun::Plan(const std::vector<std::vector<double>>& loads,
                                         const balance::PlannerOptions& options, double now_s) {
  EXPERTMESH_CHECK(loads.size() == layers_.size());
  const balance::PlanningInput input = MakeInput(loads);
  ASSIGN_OR_RETURN(const balance::PlanningResult result, balance::PlanPlacement(input, options));
  pending_.clear();
  Moves moves;
  for (const balance::LayerForecast& layer : result.layers) {
    moves.lower_bound += layer.mean > 0 ? layer.lower_bound / layer.mean : 1;
  }
  moves.lower_bound /= static_cast<double>(result.layers.size());
  if (result.decision == balance::PlanDecision::kKeep) {
    return moves;
  }
  std::vector<double> free_at(mesh_.nodes.size(), now_s);
  for (const balance::LayerPlacement& planned : result.plan.layers) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (layers_[i].layer == planned.layer) {
        Begin(planned, i, &free_at, &moves);
      }
    }
  }
  return moves;
}

}  // namespace expertmesh::replay
