// The messages of a placement plan.
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/peer_text.h"
#include "common/base/status_macros.h"
#include "router_service/balance/decision.h"

namespace expertmesh::balance_control {
namespace {

using balance::ExpertCopy;
using balance::LayerPlacement;
using balance::PlacementPlan;

constexpr size_t kMostNodes = 65'536;
constexpr size_t kMostId = 256;
// Of the sum of an expert's shares: they are floats.
constexpr float kShareSlack = 1e-3f;

template <typename... Parts>
absl::Status Wrong(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("plan: ", parts...));
}

absl::Status CheckCopies(uint32_t layer, uint32_t expert, absl::Span<const ExpertCopy> copies,
                         size_t nodes) {
  float sum = 0;
  for (size_t i = 0; i < copies.size(); ++i) {
    if (copies[i].node >= nodes) {
      return Wrong("layer ", layer, " expert ", expert, " has a copy on node ", copies[i].node,
                   " of ", nodes);
    }
    if (i > 0 && copies[i].node <= copies[i - 1].node) {
      return Wrong("layer ", layer, " expert ", expert,
                   " has copies that are not ascending by node, each node once");
    }
    if (!(copies[i].share >= 0 && copies[i].share <= 1)) {
      return Wrong("layer ", layer, " expert ", expert, " has a share of ", copies[i].share,
                   "; use 0 to 1");
    }
    sum += copies[i].share;
  }
  if (copies.empty() || std::fabs(sum - 1) > kShareSlack) {
    return Wrong("layer ", layer, " expert ", expert, " has ", copies.size(),
                 " copies whose shares add up to ", sum, "; there is at least 1, and they make 1");
  }
  return absl::OkStatus();
}

absl::StatusOr<LayerPlacement> LayerFromProto(const SteeredModel& model,
                                              const v1::LayerPlacement& proto, size_t nodes) {
  const auto known = model.layers.find(proto.layer());
  if (known == model.layers.end()) {
    return Wrong("layer ", proto.layer(), " is not a MoE layer of this model");
  }
  if (static_cast<uint32_t>(proto.copies_per_expert_size()) != known->second.num_experts) {
    return Wrong("layer ", proto.layer(), " is given ", proto.copies_per_expert_size(),
                 " experts; it has ", known->second.num_experts);
  }
  if (proto.copy_nodes_size() != proto.copy_shares_size()) {
    return Wrong("layer ", proto.layer(), " has ", proto.copy_nodes_size(), " copies and ",
                 proto.copy_shares_size(), " shares");
  }
  LayerPlacement layer;
  layer.layer = proto.layer();
  int64_t next = 0;
  for (const uint32_t copies : proto.copies_per_expert()) {
    const auto expert = static_cast<uint32_t>(layer.experts.size());
    if (copies > proto.copy_nodes_size() - next) {
      return Wrong("layer ", proto.layer(), " lists fewer copies than its experts have");
    }
    std::vector<ExpertCopy>& placed = layer.experts.emplace_back();
    for (uint32_t copy = 0; copy < copies; ++copy, ++next) {
      placed.push_back(
          {proto.copy_nodes(static_cast<int>(next)), proto.copy_shares(static_cast<int>(next))});
    }
    RETURN_IF_ERROR(CheckCopies(proto.layer(), expert, placed, nodes));
  }
  if (next != proto.copy_nodes_size()) {
    return Wrong("layer ", proto.layer(), " lists more copies than its experts have");
  }
  return layer;
}

}  // namespace

v1::PlacementPlan ToProto(const PlacementPlan& plan) {
  v1::PlacementPlan proto;
  proto.mutable_nodes()->Add(plan.nodes.begin(), plan.nodes.end());
  for (const LayerPlacement& layer : plan.layers) {
    v1::LayerPlacement& written = *proto.add_layers();
    written.set_layer(layer.layer);
    for (const std::vector<ExpertCopy>& copies : layer.experts) {
      written.add_copies_per_expert(static_cast<uint32_t>(copies.size()));
      for (const ExpertCopy& copy : copies) {
        written.add_copy_nodes(copy.node);
        written.add_copy_shares(copy.share);
      }
    }
  }
  return proto;
}

absl::StatusOr<PlacementPlan> PlanFromProto(const SteeredModel& model,
                                            const v1::PlacementPlan& proto) {
  if (static_cast<size_t>(proto.nodes_size()) > kMostNodes) {
    return Wrong(proto.nodes_size(), " nodes; there can be ", kMostNodes);
  }
  PlacementPlan plan;
  std::set<std::string> distinct;
  for (const std::string& node : proto.nodes()) {
    if (node.empty() || !distinct.insert(node).second) {
      return Wrong("node_id '", PeerText(node, kMostId), "' is empty or listed twice");
    }
    plan.nodes.push_back(PeerText(node, kMostId));
  }
  for (const v1::LayerPlacement& read : proto.layers()) {
    ASSIGN_OR_RETURN(LayerPlacement layer, LayerFromProto(model, read, plan.nodes.size()));
    if (!plan.layers.empty() && plan.layers.back().layer >= layer.layer) {
      return Wrong("layer ", layer.layer, " follows layer ", plan.layers.back().layer,
                   "; list them ascending");
    }
    plan.layers.push_back(std::move(layer));
  }
  return plan;
}

}  // namespace expertmesh::balance_control
