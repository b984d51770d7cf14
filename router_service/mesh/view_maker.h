// Makes a view of the mesh from what its nodes say now.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_VIEW_MAKER_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_VIEW_MAKER_H_

#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "router_service/mesh/mesh_view.h"
#include "router_service/mesh/weight_trust.h"
#include "router_service/mesh/weight_verifier.h"

namespace expertmesh::mesh {

// Thread-safe.
class ViewMaker {
 public:
  // `verifier` must outlive the maker.
  ViewMaker(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint, WeightVerifier* verifier);

  // `links[i]` is the node of index i, or null. `damaged` becomes what the weights' digests speak
  // against, which the view leaves out; by node, layer and expert. `plan` may be null.
  std::shared_ptr<const MeshView> Make(ViewVersion version,
                                       absl::Span<const std::shared_ptr<NodeLink>> links,
                                       ViewBiases biases, const balance::PlacementPlan* plan,
                                       std::vector<DamagedExpert>* damaged) const;

 private:
  const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
  WeightVerifier* const verifier_;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_VIEW_MAKER_H_
