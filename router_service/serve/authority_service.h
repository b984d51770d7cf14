// The routers' service among themselves, expertmesh.internal.v1.Authority.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_AUTHORITY_SERVICE_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_AUTHORITY_SERVICE_H_

#include "common/net/grpc_server.h"
#include "router_service/balance/controller.h"

namespace expertmesh::serve {

// Adds the methods of Authority to a server, which `controller` must outlive.
void AddAuthorityMethods(balance_control::Controller* controller, net::GrpcServerSpec* spec);

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_AUTHORITY_SERVICE_H_
