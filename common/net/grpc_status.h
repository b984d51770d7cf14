// absl::Status and grpc::Status; the Status of messages is in common/wire/status.h.
#ifndef EXPERTMESH_COMMON_NET_GRPC_STATUS_H_
#define EXPERTMESH_COMMON_NET_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace expertmesh::net {

// As StatusFromPeer().
absl::Status FromGrpc(const grpc::Status& status);

// Messages are cut to what fits into HTTP/2 trailers (whose limit is 8 KiB, after escaping).
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_GRPC_STATUS_H_
