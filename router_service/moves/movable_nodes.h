// What a move of experts needs to know of the nodes of a mesh, and to ask of them.
#ifndef EXPERTMESH_ROUTER_SERVICE_MOVES_MOVABLE_NODES_H_
#define EXPERTMESH_ROUTER_SERVICE_MOVES_MOVABLE_NODES_H_

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "common/transport/transport.h"
#include "expertmesh/internal/v1/expert.pb.h"

namespace expertmesh::moves {

struct ExpertKey {
  uint32_t layer = 0;
  uint32_t expert = 0;

  friend auto operator<=>(const ExpertKey&, const ExpertKey&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const ExpertKey& key) {
    return H::combine(std::move(state), key.layer, key.expert);
  }
};

using HeldExperts = absl::flat_hash_set<ExpertKey>;

// How large an expert of each layer is against those of others, in any unit.
using ExpertSizes = absl::flat_hash_map<uint32_t, uint64_t>;

// A node as it is now.
struct NodeState {
  std::string node_id;
  // Another one each time that the node starts.
  std::string instance_id;
  // Reachable, and used by routers as any other: it may be loaded to, and its copies count.
  bool ready = false;
  // Why it is not, for people.
  std::string why_not = {};
  uint64_t weights_bytes = 0;
  // 0: none.
  uint64_t limit_bytes = 0;
  // Whole experts that it serves rightly. Not null.
  std::shared_ptr<const HeldExperts> held = std::make_shared<const HeldExperts>();
  // What else it holds, which no move changes: shared experts, slices, damaged copies; in units of
  // ExpertSizes.
  uint64_t other_units = 0;
};

// Thread-safe.
class MovableNodes {
 public:
  virtual ~MovableNodes() = default;

  virtual std::vector<NodeState> Nodes() const = 0;

  // As NodeConnection's, but `done` may run within the call. NOT_FOUND: no node has that node_id.
  virtual void Load(const std::string& node_id, const internal::v1::LoadExpertsRequest& request,
                    absl::Duration timeout, LoadDone done) = 0;
  virtual void Unload(const std::string& node_id, const internal::v1::UnloadExpertsRequest& request,
                      absl::Duration timeout, UnloadDone done) = 0;
};

}  // namespace expertmesh::moves

#endif  // EXPERTMESH_ROUTER_SERVICE_MOVES_MOVABLE_NODES_H_
