// absl::Status and grpc::Status; the RequestStatus of messages is in common/wire/status.h.
#ifndef EXPERTMESH_COMMON_NET_GRPC_STATUS_H_
#define EXPERTMESH_COMMON_NET_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace expertmesh::net {

// As StatusFromPeer().
absl::Status FromGrpc(const grpc::Status& status);

// Details go along as a google.rpc.Status. Messages are cut to what fits into HTTP/2 trailers
// (whose limit is 8 KiB, after escaping); details that do not fit are left out.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_GRPC_STATUS_H_
