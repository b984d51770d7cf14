// The one place where statuses change their type: absl::Status, grpc::Status, v1::Status. The codes
// are the same numbers in all three.
#ifndef EXPERTMESH_COMMON_NET_GRPC_STATUS_H_
#define EXPERTMESH_COMMON_NET_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "expertmesh/v1/tensor.pb.h"

namespace expertmesh::net {

absl::Status FromGrpc(const grpc::Status& status);

// Messages are cut to what fits into HTTP/2 trailers (whose limit is 8 KiB, after escaping).
grpc::Status ToGrpc(const absl::Status& status);

// A code outside of google.rpc.Code becomes UNKNOWN.
absl::Status FromProto(const v1::Status& status);
v1::Status ToProto(const absl::Status& status);

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_GRPC_STATUS_H_
