// The one place where statuses change their type: absl::Status and the RequestStatus of messages.
// The codes are the same numbers in both, and in gRPC (common/net/grpc_status.h); details are
// payloads.
#ifndef EXPERTMESH_COMMON_WIRE_STATUS_H_
#define EXPERTMESH_COMMON_WIRE_STATUS_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "expertmesh/v1/errors.pb.h"

namespace expertmesh {

// A status as a peer gave it. A number that is no code of google.rpc.Code becomes UNKNOWN, and the
// message names the number. Allocates nothing when it is OK.
absl::Status StatusFromPeer(int code, absl::string_view message);
absl::Status FromWire(const v1::RequestStatus& status);

v1::RequestStatus ToWire(const absl::Status& status);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_STATUS_H_
