#include "router_service/mesh/placement.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/string_view.h"

namespace expertmesh::mesh {
namespace {

constexpr uint32_t kAnySlices = ~uint32_t{0};

// Nodes by slice, for each number of slices that an expert is offered in, fewest first. Only slices
// that are offered have a place: memory follows what nodes list, not the numbers that they name.
using Offered = std::map<uint32_t, std::map<uint32_t, std::vector<NodeIndex>>>;

// One map per expert.
struct OfferedLayer {
  const MoeLayerDescription* description = nullptr;
  std::vector<Offered> experts;
};
using OfferedLayers = absl::flat_hash_map<uint32_t, OfferedLayer>;

void Collect(const NodeOffer& offer, OfferedLayers* layers) {
  for (const v1::HostedExperts* hosted : offer.hosted) {
    const auto layer = layers->find(hosted->layer());
    if (layer == layers->end()) {
      continue;
    }
    for (const uint32_t expert : hosted->experts()) {
      if (!IsPossible(*hosted, expert, *layer->second.description) ||
          std::binary_search(offer.excluded.begin(), offer.excluded.end(),
                             std::make_pair(hosted->layer(), expert))) {
        continue;
      }
      layer->second.experts[expert][hosted->slice_count()][hosted->slice_index()].push_back(
          offer.node);
    }
  }
}

// The offer with the fewest slices, `most_slices` at most, that is complete.
ExpertReplicas Choose(Offered* offered, uint32_t most_slices) {
  for (auto& [count, slices] : *offered) {
    if (count <= most_slices && slices.size() == count) {
      ExpertReplicas replicas;
      for (auto& [slice, nodes] : slices) {
        std::sort(nodes.begin(), nodes.end());
        nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
        replicas.slices.push_back(std::move(nodes));
      }
      return replicas;
    }
  }
  return {};
}

// The nodes of an offer and of a plan are the same by their node_id.
class PlannedCopies {
 public:
  PlannedCopies(const balance::PlacementPlan* plan, absl::Span<const NodeOffer> offers) {
    if (plan == nullptr) {
      return;
    }
    absl::flat_hash_map<absl::string_view, std::vector<NodeIndex>> named;
    for (const NodeOffer& offer : offers) {
      named[offer.node_id].push_back(offer.node);
    }
    for (const std::string& node_id : plan->nodes) {
      const auto found = named.find(node_id);
      nodes_.push_back(found == named.end() ? std::vector<NodeIndex>() : found->second);
    }
    for (const balance::LayerPlacement& layer : plan->layers) {
      layers_[layer.layer] = &layer;
    }
  }

  // Those copies of the expert that are `offered`; missing when none is.
  ExpertReplicas Ready(uint32_t layer, uint32_t expert, const Offered& offered) const {
    const auto planned = layers_.find(layer);
    const auto whole = offered.find(1);
    if (planned == layers_.end() || expert >= planned->second->experts.size() ||
        whole == offered.end()) {
      return {};
    }
    std::map<NodeIndex, float> ready;  // And the share.
    for (const balance::ExpertCopy& copy : planned->second->experts[expert]) {
      const std::optional<NodeIndex> node = NodeOf(copy, whole->second.at(0));
      if (node.has_value()) {
        ready[*node] += copy.share > 0 && std::isfinite(copy.share) ? copy.share : 0;
      }
    }
    return Replicas(ready);
  }

 private:
  // The node that the copy is on, if it is one of `offering`. (Two may go by one name.)
  std::optional<NodeIndex> NodeOf(const balance::ExpertCopy& copy,
                                  const std::vector<NodeIndex>& offering) const {
    if (copy.node < nodes_.size()) {
      for (const NodeIndex node : nodes_[copy.node]) {
        if (std::find(offering.begin(), offering.end(), node) != offering.end()) {
          return node;
        }
      }
    }
    return std::nullopt;
  }

  static ExpertReplicas Replicas(const std::map<NodeIndex, float>& ready) {
    if (ready.empty()) {
      return {};
    }
    float sum = 0;
    for (const auto& [node, share] : ready) {
      sum += share;
    }
    ExpertReplicas replicas;
    std::vector<NodeIndex>& nodes = replicas.slices.emplace_back();
    std::vector<float>& shares = replicas.shares.emplace_back();
    for (const auto& [node, share] : ready) {
      nodes.push_back(node);
      shares.push_back(sum > 0 ? share / sum : 1.0f / static_cast<float>(ready.size()));
    }
    return replicas;
  }

  // [nodes of the plan] Usually one each.
  std::vector<std::vector<NodeIndex>> nodes_;
  absl::flat_hash_map<uint32_t, const balance::LayerPlacement*> layers_;
};

OfferedLayers EmptyLayers(const ModelDescription& model) {
  OfferedLayers layers;
  for (const MoeLayerDescription& layer : model.layers) {
    layers[layer.layer] = {&layer, std::vector<Offered>(layer.hostable_experts())};
  }
  return layers;
}

}  // namespace

bool IsPossible(const v1::HostedExperts& hosted, uint32_t expert,
                const MoeLayerDescription& layer) {
  if (expert >= layer.hostable_experts()) {
    return false;
  }
  const uint32_t intermediate = layer.hostable_expert(expert).intermediate_size;
  return hosted.slice_count() > 0 && hosted.slice_index() < hosted.slice_count() &&
         hosted.slice_count() <= std::max<uint32_t>(intermediate, 1) &&
         intermediate % hosted.slice_count() == 0;
}

std::optional<size_t> ExpertReplicas::SliceOn(NodeIndex node) const {
  for (size_t slice = 0; slice < slices.size(); ++slice) {
    if (std::binary_search(slices[slice].begin(), slices[slice].end(), node)) {
      return slice;
    }
  }
  return std::nullopt;
}

Placement::Placement(const ModelDescription& model, absl::Span<const NodeOffer> offers,
                     const balance::PlacementPlan* plan) {
  const PlannedCopies planned(plan, offers);
  OfferedLayers preferred = EmptyLayers(model);
  OfferedLayers everyone = EmptyLayers(model);
  for (const NodeOffer& offer : offers) {
    if (!offer.last_resort) {
      Collect(offer, &preferred);
    }
    Collect(offer, &everyone);
  }
  for (const MoeLayerDescription& layer : model.layers) {
    std::vector<ExpertReplicas>& placed = layers_[layer.layer];
    MissingExperts missing{layer.layer, {}};
    for (uint32_t expert = 0; expert < layer.hostable_experts(); ++expert) {
      const bool shared = expert == layer.shared_expert_id();
      Offered* const offered = &preferred[layer.layer].experts[expert];
      ExpertReplicas replicas = planned.Ready(layer.layer, expert, *offered);
      if (replicas.missing()) {
        replicas = Choose(offered, shared ? 1 : kAnySlices);
      }
      if (replicas.missing() && !shared) {
        replicas = Choose(&everyone[layer.layer].experts[expert], kAnySlices);
      }
      if (replicas.missing() && !shared) {
        missing.experts.push_back(expert);
      }
      placed.push_back(std::move(replicas));
    }
    if (!missing.experts.empty()) {
      missing_.push_back(std::move(missing));
    }
  }
}

const std::vector<ExpertReplicas>* Placement::Layer(uint32_t layer) const {
  const auto it = layers_.find(layer);
  return it == layers_.end() ? nullptr : &it->second;
}

}  // namespace expertmesh::mesh
