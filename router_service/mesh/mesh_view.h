// The mesh as one batch sees it, from its first stage to its answer.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_MESH_VIEW_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_MESH_VIEW_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
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
};

// By layer: what is added to the scores of its experts for selection only, [num_experts]. A layer
// without a bias is left out.
using SelectBiases = absl::flat_hash_map<uint32_t, std::vector<float>>;

// Immutable, thread-safe. Taken once when a batch starts: bias, placement and limits are of one
// epoch, which is the epoch of the answer.
class MeshView {
 public:
  // `nodes[i]` is the node of index i; without a link when it takes no batches.
  MeshView(uint64_t epoch, Placement placement, std::shared_ptr<const SelectBiases> biases,
           std::vector<NodeView> nodes)
      : epoch_(epoch),
        placement_(std::move(placement)),
        biases_(std::move(biases)),
        nodes_(std::move(nodes)) {}

  // Version of bias and placement.
  uint64_t epoch() const { return epoch_; }
  const Placement& placement() const { return placement_; }
  const std::shared_ptr<const SelectBiases>& biases() const { return biases_; }

  // [num_experts], or empty.
  absl::Span<const float> SelectBias(uint32_t layer) const {
    const auto it = biases_->find(layer);
    return it == biases_->end() ? absl::Span<const float>() : absl::MakeConstSpan(it->second);
  }

  // `index` is of a node in the placement.
  const NodeView& node(NodeIndex index) const { return nodes_[index]; }

 private:
  const uint64_t epoch_;
  const Placement placement_;
  const std::shared_ptr<const SelectBiases> biases_;
  const std::vector<NodeView> nodes_;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_MESH_VIEW_H_
