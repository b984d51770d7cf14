// The mesh as one batch sees it, from its first stage to its answer.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_MESH_VIEW_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_MESH_VIEW_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/gate/select_bias.h"
#include "router_service/mesh/directive.h"
#include "router_service/mesh/node_identity.h"
#include "router_service/mesh/placement.h"
#include "router_service/mesh/wire_encoding.h"

namespace expertmesh::mesh {

class NodeLink;

// What planning and sending need to know of one node. What changes with every batch, the work in
// flight, is asked of the link.
struct NodeView {
  std::shared_ptr<NodeLink> link;
  WireEncoding encoding;
  // Largest batch, in rows, and largest frame, in bytes, that the node accepts; 0: it does not say.
  uint32_t max_batch_rows = 0;
  uint64_t max_frame_bytes = 0;
  // Not null where `link` is not.
  std::shared_ptr<const NodeIdentity> identity;
};

// Biases of all layers.
struct ViewBiases {
  // Never null.
  std::shared_ptr<const SelectBiases> checkpoint;
  // As Directive::live_biases.
  std::shared_ptr<const SelectBiases> live;
};

// Which view it is.
struct ViewVersion {
  // As in the directive.
  uint64_t term = 0;
  uint64_t decision = 0;
  // Version of bias and placement.
  uint64_t epoch = 1;
  // Counts the views that this router made, whatever changed.
  uint64_t revision = 1;
};

// Immutable, thread-safe. Taken once when a batch starts: bias, placement and limits are of one
// epoch, which is the epoch of the answer.
class MeshView {
 public:
  // `nodes[i]` is the node of index i; without a link when it takes no batches.
  MeshView(ViewVersion version, std::shared_ptr<const Placement> placement, ViewBiases biases,
           std::vector<NodeView> nodes)
      : version_(version),
        placement_(std::move(placement)),
        biases_(std::move(biases)),
        nodes_(std::move(nodes)) {}

  const ViewVersion& version() const { return version_; }
  uint64_t epoch() const { return version_.epoch; }
  const Placement& placement() const { return *placement_; }

  // Valid for as long as the view.
  gate::SelectBias SelectBias(uint32_t layer) const {
    return {Find(biases_.checkpoint.get(), layer), Find(biases_.live.get(), layer)};
  }

  // `index` is of a node in the placement.
  const NodeView& node(NodeIndex index) const { return nodes_[index]; }

  // The same nodes and placement, with another version and other biases.
  std::shared_ptr<const MeshView> With(ViewVersion version, ViewBiases biases) const {
    return std::make_shared<const MeshView>(version, placement_, std::move(biases), nodes_);
  }

 private:
  static absl::Span<const float> Find(const SelectBiases* biases, uint32_t layer) {
    if (biases == nullptr) {
      return {};
    }
    const auto it = biases->find(layer);
    return it == biases->end() ? absl::Span<const float>() : absl::MakeConstSpan(it->second);
  }

  const ViewVersion version_;
  const std::shared_ptr<const Placement> placement_;
  const ViewBiases biases_;
  const std::vector<NodeView> nodes_;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_MESH_VIEW_H_
