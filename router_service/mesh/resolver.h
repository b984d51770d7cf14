// From what the operator wrote to the addresses of nodes, and watching it for changes.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_RESOLVER_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_RESOLVER_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace expertmesh::mesh {

// Addresses of a host name, numeric, IPv6 without brackets, in any order. May block.
using HostLookup = std::function<absl::StatusOr<std::vector<std::string>>(const std::string& host)>;

// By getaddrinfo. UNAVAILABLE names the host and the reason.
absl::StatusOr<std::vector<std::string>> SystemLookup(const std::string& host);

// `spec` is a comma-separated list of host:port, unix:/path and dns:///name:port. The last one
// stands for all addresses of the name; the others are kept as they are. The result is sorted and
// has no duplicates, so all who resolve the same nodes have the same order.
//   INVALID_ARGUMENT  an entry makes no sense; named.
//   whatever `lookup` gives when a name cannot be resolved.
absl::StatusOr<std::vector<std::string>> ResolveAddresses(absl::string_view spec,
                                                          const HostLookup& lookup);

struct NodeDirectoryOptions {
  // Pause between look-ups. No look-ups after the first when `spec` has no dns:/// entry.
  absl::Duration interval = absl::Seconds(5);
  Clock* clock = Clock::Real();
  HostLookup lookup = SystemLookup;
};

// Looks `spec` up again and again, on a thread of its own. A look-up that fails changes nothing:
// the last list stays. Thread-safe.
class NodeDirectory {
 public:
  // Called on the directory's thread with the first list and with every other one.
  using OnChange = std::function<void(const std::vector<std::string>& addresses)>;

  // INVALID_ARGUMENT when `spec` makes no sense.
  static absl::StatusOr<std::unique_ptr<NodeDirectory>> Start(std::string spec,
                                                              NodeDirectoryOptions options,
                                                              OnChange on_change);
  // Waits for a call that is running.
  ~NodeDirectory();

  // Outcome of the last look-up; OK before the first.
  absl::Status last_status() const;

 private:
  NodeDirectory(std::string spec, NodeDirectoryOptions options, OnChange on_change);
  void Run();

  const std::string spec_;
  const NodeDirectoryOptions options_;
  const OnChange on_change_;
  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status last_status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // Last: starts when everything else is there.
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_RESOLVER_H_
