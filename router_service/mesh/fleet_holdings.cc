// What the nodes of a fleet hold, for those who decide what they are to hold.
#include <utility>

#include "router_service/mesh/fleet.h"

namespace expertmesh::mesh {

std::vector<NodeHolding> Fleet::Holdings() const {
  Links nodes;
  std::vector<DamagedExpert> damaged;
  {
    absl::MutexLock lock(&mutex_);
    nodes = nodes_;
    damaged = damaged_;
  }
  std::vector<NodeHolding> holdings;
  for (NodeIndex index = 0; index < nodes.size(); ++index) {
    if (nodes[index] == nullptr) {
      continue;
    }
    NodeHolding holding;
    holding.offer = nodes[index]->Offer();
    for (const DamagedExpert& copy : damaged) {
      if (copy.node == index) {
        holding.damaged.emplace_back(copy.layer, copy.expert);
      }
    }
    holding.link = std::move(nodes[index]);
    holdings.push_back(std::move(holding));
  }
  return holdings;
}

}  // namespace expertmesh::mesh
