#include "router_service/moves/fleet_nodes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace expertmesh::moves {
namespace {

std::string WhyNotReady(const mesh::NodeHolding& holding) {
  if (holding.offer.description == nullptr) {
    return "it cannot be reached, or serves another model";
  }
  if (holding.offer.last_resort) {
    return "it drains, or is ejected since its answers failed";
  }
  switch (holding.offer.description->state()) {
    case v1::NODE_STATE_READY:
      return "";
    case v1::NODE_STATE_FAILED:
      return holding.offer.description->message();
    default:
      return "it loads what its flags say";
  }
}

absl::Status NoSuchNode(const std::string& node_id) {
  return absl::UnavailableError(absl::StrCat("no node named ", node_id, " can be reached"));
}

}  // namespace

std::vector<NodeState> FleetNodes::Nodes() const {
  std::vector<NodeState> nodes;
  std::map<std::string, Known> present;
  for (const mesh::NodeHolding& holding : fleet_->Holdings()) {
    NodeState node;
    node.node_id = holding.link->node_id();
    node.why_not = WhyNotReady(holding);
    node.ready = node.why_not.empty();
    if (holding.offer.description != nullptr) {
      node.instance_id = holding.offer.description->instance_id();
      node.weights_bytes = holding.offer.description->memory().weights_bytes();
      node.limit_bytes = holding.offer.description->memory().limit_bytes();
      Known& known = present[holding.link->address()] = Read(holding);
      node.held = known.held;
      node.other_units = known.other_units;
    }
    nodes.push_back(std::move(node));
  }
  absl::MutexLock lock(&mutex_);
  known_.swap(present);
  // A node that can be used goes before others of its name.
  std::stable_sort(nodes.begin(), nodes.end(),
                   [](const NodeState& a, const NodeState& b) { return a.ready && !b.ready; });
  return nodes;
}

FleetNodes::Known FleetNodes::Read(const mesh::NodeHolding& holding) const {
  {
    absl::MutexLock lock(&mutex_);
    const auto known = known_.find(holding.link->address());
    if (known != known_.end() && known->second.description == holding.offer.description &&
        known->second.damaged == holding.damaged) {
      return known->second;
    }
  }
  Known read{holding.offer.description, holding.damaged, nullptr};
  auto held = std::make_shared<HeldExperts>();
  for (const v1::HostedExperts& hosted : holding.offer.description->hosted()) {
    const auto found = layers_.find(hosted.layer());
    if (found == layers_.end()) {
      continue;
    }
    const LayerUnits& layer = found->second;
    for (const uint32_t expert : hosted.experts()) {
      if (hosted.slice_count() == 1 && expert < layer.num_experts &&
          !std::binary_search(holding.damaged.begin(), holding.damaged.end(),
                              std::make_pair(hosted.layer(), expert))) {
        held->insert({hosted.layer(), expert});
      } else if (expert <= layer.num_experts) {
        read.other_units += (expert < layer.num_experts ? layer.expert_units : layer.shared_units) /
                            std::max<uint32_t>(hosted.slice_count(), 1);
      }
    }
  }
  read.held = std::move(held);
  return read;
}

std::shared_ptr<mesh::NodeLink> FleetNodes::LinkOf(const std::string& node_id) const {
  std::shared_ptr<mesh::NodeLink> found;
  for (const mesh::NodeHolding& holding : fleet_->Holdings()) {
    if (holding.link->node_id() == node_id && WhyNotReady(holding).empty()) {
      return holding.link;
    }
  }
  return nullptr;
}

void FleetNodes::Load(const std::string& node_id, const internal::v1::LoadExpertsRequest& request,
                      absl::Duration timeout, LoadDone done) {
  if (const std::shared_ptr<mesh::NodeLink> link = LinkOf(node_id)) {
    link->LoadExperts(request, timeout, std::move(done));
  } else {
    done(NoSuchNode(node_id));
  }
}

void FleetNodes::Unload(const std::string& node_id,
                        const internal::v1::UnloadExpertsRequest& request, absl::Duration timeout,
                        UnloadDone done) {
  if (const std::shared_ptr<mesh::NodeLink> link = LinkOf(node_id)) {
    link->UnloadExperts(request, timeout, std::move(done));
  } else {
    done(NoSuchNode(node_id));
  }
}

}  // namespace expertmesh::moves
