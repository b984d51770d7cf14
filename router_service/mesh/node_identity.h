// Which process a node is, as spans name it.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_NODE_IDENTITY_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_NODE_IDENTITY_H_

#include <string>

#include "common/trace/resource.h"
#include "expertmesh/v1/node.pb.h"

namespace expertmesh::mesh {

// Constant, thread-safe.
struct NodeIdentity {
  // `address`: where the router reaches it, host:port; `description`: what it said of itself.
  NodeIdentity(const std::string& address, const v1::NodeDescription& description);

  std::string host;
  int port = 0;
  std::string node_id;
  std::string instance_id;
  trace::ResourcePtr resource;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_NODE_IDENTITY_H_
