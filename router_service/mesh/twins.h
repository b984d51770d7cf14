// One node under two addresses.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_TWINS_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_TWINS_H_

#include <memory>

#include "absl/types/span.h"

namespace expertmesh::mesh {

class NodeLink;

// Where several links lead to the same process, marks all but the first: it is no replica of
// itself. Some may be null.
void MarkTwins(absl::Span<const std::shared_ptr<NodeLink>> links);

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_TWINS_H_
