// Where the router learns which nodes there are.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_NODE_SOURCE_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_NODE_SOURCE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace expertmesh::mesh {

// Tells the addresses of the nodes until it is destroyed, which waits for a call that is running.
// Thread-safe.
class NodeSource {
 public:
  // Gets the first list and every one that differs from the one before; sorted, without duplicates,
  // so that all routers that see the same nodes have the same order. One call at a time.
  using OnChange = std::function<void(const std::vector<std::string>& addresses)>;

  // Gets the outcome of a look-up that differs from that of the one before; the first one that is
  // told is an error. A look-up that fails changes nothing: the last list stays. Likewise.
  using OnStatus = std::function<void(const absl::Status&)>;

  virtual ~NodeSource() = default;
};

// Addresses of a host name, numeric, IPv6 without brackets, in any order. May block.
using HostLookup = std::function<absl::StatusOr<std::vector<std::string>>(const std::string& host)>;

// By getaddrinfo. UNAVAILABLE names the host and the reason.
absl::StatusOr<std::vector<std::string>> SystemLookup(const std::string& host);

struct NodeSourceOptions {
  // Pause between look-ups of names.
  absl::Duration interval = absl::Seconds(5);
  Clock* clock = Clock::Real();
  HostLookup lookup = SystemLookup;
};

// `spec` is a comma-separated list of host:port, unix:/path and dns:///name:port. The last one
// stands for all addresses of the name, which is looked up again and again; a list without one is
// told once, before this returns.
//   INVALID_ARGUMENT  an entry makes no sense; named.
absl::StatusOr<std::unique_ptr<NodeSource>> MakeNodeSource(const std::string& spec,
                                                           const NodeSourceOptions& options,
                                                           NodeSource::OnChange on_change,
                                                           NodeSource::OnStatus on_status);

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_NODE_SOURCE_H_
