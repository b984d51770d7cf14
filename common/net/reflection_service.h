// gRPC's server reflection: tells which services there are and what their messages look like.
#ifndef EXPERTMESH_COMMON_NET_REFLECTION_SERVICE_H_
#define EXPERTMESH_COMMON_NET_REFLECTION_SERVICE_H_

#include <string>
#include <vector>

#include "common/net/grpc_server.h"

namespace expertmesh::net {

// Both versions of the method. `services`: full names; their .proto files must be linked into this
// program to be described.
std::vector<RawStreamMethod> ReflectionMethods(std::vector<std::string> services);

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_REFLECTION_SERVICE_H_
