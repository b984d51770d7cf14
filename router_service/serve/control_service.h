// The operators' service, expertmesh.v1.Control: topology, load, drain.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_CONTROL_SERVICE_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_CONTROL_SERVICE_H_

#include "common/net/grpc_server.h"
#include "expertmesh/v1/control.pb.h"
#include "router_service/serve/balance_watch.h"
#include "router_service/serve/router_server.h"

namespace expertmesh::serve {

// As GetTopology answers.
v1::Topology TopologyOf(const ServedRouter& router);

// Adds the methods of Control to a server. `router`, what it points to, and `balance`, which is of
// the same controller, must outlive it.
void AddControlMethods(const ServedRouter* router, BalanceWatch* balance,
                       net::GrpcServerSpec* spec);

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_CONTROL_SERVICE_H_
