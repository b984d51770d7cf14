// The nodes of a fleet, as those who move experts see them.
#ifndef EXPERTMESH_ROUTER_SERVICE_MOVES_FLEET_NODES_H_
#define EXPERTMESH_ROUTER_SERVICE_MOVES_FLEET_NODES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "router_service/mesh/fleet.h"
#include "router_service/moves/movable_nodes.h"

namespace expertmesh::moves {

// A layer, as nodes hold it; what is larger takes more memory, in any unit.
struct LayerUnits {
  uint32_t num_experts = 0;
  uint64_t expert_units = 0;
  // The shared experts, taken as one.
  uint64_t shared_units = 0;
};

// Thread-safe.
class FleetNodes final : public MovableNodes {
 public:
  // By layer. What nodes hold beyond a layer's experts, such as shared ones, is nothing to be
  // moved, and is left alone. `fleet` must outlive it. Fleet::Subscribe tells when Nodes() may say
  // something else.
  FleetNodes(const mesh::Fleet* fleet, std::map<uint32_t, LayerUnits> layers)
      : fleet_(fleet), layers_(std::move(layers)) {}

  std::vector<NodeState> Nodes() const override;
  void Load(const std::string& node_id, const internal::v1::LoadExpertsRequest& request,
            absl::Duration timeout, LoadDone done) override;
  void Unload(const std::string& node_id, const internal::v1::UnloadExpertsRequest& request,
              absl::Duration timeout, UnloadDone done) override;

 private:
  // What was made of a description, kept for as long as the node has no other.
  struct Known {
    std::shared_ptr<const v1::NodeDescription> description;
    std::vector<std::pair<uint32_t, uint32_t>> damaged;
    std::shared_ptr<const HeldExperts> held;
    uint64_t other_units = 0;
  };

  // Null when no node of that name can be asked.
  std::shared_ptr<mesh::NodeLink> LinkOf(const std::string& node_id) const;
  Known Read(const mesh::NodeHolding& holding) const;

  const mesh::Fleet* const fleet_;
  const std::map<uint32_t, LayerUnits> layers_;
  mutable absl::Mutex mutex_;
  mutable std::map<std::string, Known> known_ ABSL_GUARDED_BY(mutex_);  // By address.
};

}  // namespace expertmesh::moves

#endif  // EXPERTMESH_ROUTER_SERVICE_MOVES_FLEET_NODES_H_
