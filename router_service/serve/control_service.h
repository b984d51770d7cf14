// The operators' service, expertmesh.v1.Control: topology, load, drain.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_CONTROL_SERVICE_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_CONTROL_SERVICE_H_

#include "common/net/grpc_server.h"
#include "router_service/router.h"

namespace expertmesh::serve {

// Adds the methods of Control to a server. `router` must outlive it.
void AddControlMethods(router::Router* router, net::GrpcServerSpec* spec);

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_CONTROL_SERVICE_H_
