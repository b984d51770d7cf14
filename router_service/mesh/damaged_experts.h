// Tells operators which copies of experts are not used, in the topology and in the log.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_DAMAGED_EXPERTS_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_DAMAGED_EXPERTS_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "expertmesh/v1/control.pb.h"
#include "router_service/mesh/weight_trust.h"

namespace expertmesh::mesh {

// Adds what of `damaged` is `node`'s, layer by layer.
void AddDamaged(absl::Span<const DamagedExpert> damaged, NodeIndex node,
                v1::TopologyNode* topology);

// Names in the log what of `node`, at `address`, is damaged `now` and was not `before`. The number
// of its damaged experts now.
uint64_t LogNewlyDamaged(absl::Span<const DamagedExpert> before,
                         absl::Span<const DamagedExpert> now, NodeIndex node,
                         const std::string& address);

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_DAMAGED_EXPERTS_H_
