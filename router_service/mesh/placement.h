// Which node holds which (layer, expert): an immutable snapshot. Changes make a new one.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_PLACEMENT_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_PLACEMENT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "common/balance/placement_plan.h"
#include "common/model/model_description.h"
#include "expertmesh/internal/v1/expert.pb.h"

namespace expertmesh::mesh {

// Position of a node in placement order, the order in which partials are summed. A node keeps its
// place until it is let go; the place may then go to another one.
using NodeIndex = uint32_t;

// What one node offers to a placement.
struct NodeOffer {
  NodeIndex node = 0;
  // Used only where no other node can serve.
  bool last_resort = false;
  // Held experts, as the node described them.
  absl::Span<const v1::HostedExperts* const> hosted;
  // (layer, expert) of these that are not to be used; ascending.
  std::vector<std::pair<uint32_t, uint32_t>> excluded = {};
  // By which a plan names the node.
  std::string node_id = {};
};

// False for an expert that the layer does not have (its shared experts are one past the others),
// and for slices that this one cannot have: nothing is made of what a node makes up.
bool IsPossible(const v1::HostedExperts& hosted, uint32_t expert, const MoeLayerDescription& layer);

// Nodes that can serve one expert. An expert split into slices needs one node for each slice.
struct ExpertReplicas {
  // replicas[s]: nodes that hold slice s, in placement order. Empty when the expert is missing:
  // either no node holds it or some slice of it has none.
  std::vector<std::vector<NodeIndex>> slices;
  // shares[s][r]: how much of the expert's assignments slices[s][r] is to get; those of a slice add
  // up to 1. Empty: no plan says, and any may get any.
  std::vector<std::vector<float>> shares = {};

  bool missing() const { return slices.empty(); }

  // Which slice `node` holds; none when it holds nothing of the expert.
  std::optional<size_t> SliceOn(NodeIndex node) const;
};

// Experts of one layer that no node can serve; ascending.
struct MissingExperts {
  uint32_t layer = 0;
  std::vector<uint32_t> experts;
};

// Immutable, thread-safe.
class Placement {
 public:
  // Nothing placed.
  Placement() = default;

  // Experts that `model` does not have are left out. When an expert is offered both whole and in
  // slices (or in different numbers of slices), the complete offer with the fewest slices is used.
  // Shared experts need not be anywhere: they are not missing, and neither slices of them nor a
  // last resort are used.
  //
  // With a `plan` (null: none) an expert is served by the copies that the plan names, as far as
  // their nodes offer them whole and are no last resort; the shares of those that do not go to the
  // others in proportion. Where no planned copy can serve, the plan is not looked at: it never
  // makes an expert missing. What it says of nodes, layers and experts that do not exist is left
  // out.
  Placement(const ModelDescription& model, absl::Span<const NodeOffer> offers,
            const balance::PlacementPlan* plan = nullptr);

  // [MoeLayerDescription::hostable_experts()], the shared experts last. Null when `layer` is not a
  // MoE layer.
  const std::vector<ExpertReplicas>* Layer(uint32_t layer) const;

  // Every expert of every layer has a node.
  bool complete() const { return missing_.empty() && !layers_.empty(); }

  // By layer, ascending; layers that miss none are left out.
  const std::vector<MissingExperts>& missing() const { return missing_; }

 private:
  absl::flat_hash_map<uint32_t, std::vector<ExpertReplicas>> layers_;
  std::vector<MissingExperts> missing_;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_PLACEMENT_H_
