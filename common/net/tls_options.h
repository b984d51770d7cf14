// How a client's connection is encrypted.
#ifndef EXPERTMESH_COMMON_NET_TLS_OPTIONS_H_
#define EXPERTMESH_COMMON_NET_TLS_OPTIONS_H_

#include <string>

#include "absl/status/status.h"

namespace expertmesh::net {

// Keys and certificates are texts in PEM.
struct TlsOptions {
  // Authorities that may have signed the server's certificate; empty: the system's.
  std::string root_certificates;
  // What the client shows of itself: both or neither.
  std::string private_key;
  std::string certificate_chain;
  // The name that the server's certificate must have; empty: the host in the address.
  std::string server_name;
};

// INVALID_ARGUMENT names the field that cannot be used. gRPC itself would only say at the first
// call that the channel is of no use.
absl::Status CheckTlsOptions(const TlsOptions& options);

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_TLS_OPTIONS_H_
