#include "router_service/mesh/placement.h"

#include <algorithm>
#include <map>
#include <utility>

namespace expertmesh::mesh {
namespace {

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
    if (layer == layers->end() || !IsPossibleSlice(*hosted, *layer->second.description)) {
      continue;
    }
    for (const uint32_t expert : hosted->experts()) {
      if (expert >= layer->second.experts.size() ||
          std::binary_search(offer.excluded.begin(), offer.excluded.end(),
                             std::make_pair(hosted->layer(), expert))) {
        continue;
      }
      layer->second.experts[expert][hosted->slice_count()][hosted->slice_index()].push_back(
          offer.node);
    }
  }
}

ExpertReplicas Choose(Offered* offered) {
  for (auto& [count, slices] : *offered) {
    if (slices.size() == count) {
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

OfferedLayers EmptyLayers(const ModelDescription& model) {
  OfferedLayers layers;
  for (const MoeLayerDescription& layer : model.layers) {
    layers[layer.layer] = {&layer, std::vector<Offered>(layer.routing.num_experts)};
  }
  return layers;
}

}  // namespace

bool IsPossibleSlice(const v1::HostedExperts& hosted, const MoeLayerDescription& layer) {
  return hosted.slice_count() > 0 && hosted.slice_index() < hosted.slice_count() &&
         hosted.slice_count() <= std::max<uint32_t>(layer.expert.intermediate_size, 1) &&
         layer.expert.intermediate_size % hosted.slice_count() == 0;
}

std::optional<size_t> ExpertReplicas::SliceOn(NodeIndex node) const {
  for (size_t slice = 0; slice < slices.size(); ++slice) {
    if (std::binary_search(slices[slice].begin(), slices[slice].end(), node)) {
      return slice;
    }
  }
  return std::nullopt;
}

Placement::Placement(const ModelDescription& model, absl::Span<const NodeOffer> offers) {
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
    for (uint32_t expert = 0; expert < layer.routing.num_experts; ++expert) {
      ExpertReplicas replicas = Choose(&preferred[layer.layer].experts[expert]);
      if (replicas.missing()) {
        replicas = Choose(&everyone[layer.layer].experts[expert]);
      }
      if (replicas.missing()) {
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
