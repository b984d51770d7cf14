// Where gRPC's own log lines go.
#ifndef EXPERTMESH_COMMON_NET_GRPC_LOGGING_H_
#define EXPERTMESH_COMMON_NET_GRPC_LOGGING_H_

namespace expertmesh::net {

// Sends gRPC's own lines to our log at level debug: what matters of them comes back as a Status and
// is reported once, in our words. Call once, before gRPC is used. Silences protobuf's parser too,
// since a peer's bad message is answered, not logged by the line.
void RouteGrpcLogs();

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_GRPC_LOGGING_H_
