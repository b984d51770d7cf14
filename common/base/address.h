// Addresses of nodes and servers: host:port, or unix:/path.
#ifndef EXPERTMESH_COMMON_BASE_ADDRESS_H_
#define EXPERTMESH_COMMON_BASE_ADDRESS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace expertmesh {

struct HostPort {
  std::string host;  // IPv6 without brackets.
  std::string port;  // 0 to 65535.
};

// Splits "host:port" or "[v6]:port". INVALID_ARGUMENT names the text.
absl::StatusOr<HostPort> SplitHostPort(absl::string_view address);

// The inverse; puts IPv6 into brackets.
std::string JoinHostPort(absl::string_view host, absl::string_view port);

// OK for what one can connect to: host:port with a port from 1, or unix:/path.
absl::Status CheckAddress(absl::string_view address);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_ADDRESS_H_
