// What is decided centrally, and every view of the mesh is made by.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_DIRECTIVE_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_DIRECTIVE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/balance/placement_plan.h"

namespace expertmesh::mesh {

// By layer: what is added to the scores of its experts for selection only, [num_experts]. A layer
// without a bias is left out.
using SelectBiases = absl::flat_hash_map<uint32_t, std::vector<float>>;

// Plain data.
struct Directive {
  // Who decides whose epochs count: of two authorities the one with the higher term is right.
  uint64_t term = 0;
  // A router that is its own authority counts on from here: its views have this epoch or a later
  // one. One that follows gives its views this epoch, whatever it sees of the nodes.
  uint64_t epoch = 1;
  bool follows = false;
  // Counts what was decided, for those who want to know by which decision a view was made.
  uint64_t decision = 0;
  // Biases in force in place of the checkpoint's. Null: none.
  std::shared_ptr<const SelectBiases> live_biases;
  // Copies that batches use, and their shares. Null: every copy that nodes offer.
  std::shared_ptr<const balance::PlacementPlan> plan;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_DIRECTIVE_H_
