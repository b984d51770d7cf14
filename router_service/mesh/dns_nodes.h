// Nodes by DNS name.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_DNS_NODES_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_DNS_NODES_H_

#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "router_service/mesh/node_source.h"

namespace expertmesh::mesh {

// `spec` is a comma-separated list of host:port, unix:/path and dns:///name:port. The last one
// stands for all addresses of the name; the others are kept as they are. Sorted, without
// duplicates.
//   INVALID_ARGUMENT  an entry makes no sense; named.
//   whatever `lookup` gives when a name cannot be resolved.
absl::StatusOr<std::vector<std::string>> ResolveAddresses(absl::string_view spec,
                                                          const HostLookup& lookup);

// `spec` has an entry whose addresses may change.
bool HasNames(absl::string_view spec);

// Looks `spec` up again and again, on a thread of its own, which calls `on_change` and `on_status`.
// Thread-safe.
class DnsNodes final : public NodeSource {
 public:
  // `spec` passes ResolveAddresses.
  DnsNodes(std::string spec, NodeSourceOptions options, OnChange on_change, OnStatus on_status);
  ~DnsNodes() override;

 private:
  void Run();

  const std::string spec_;
  const NodeSourceOptions options_;
  const OnChange on_change_;
  const OnStatus on_status_;
  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // Last: starts when everything else is there.
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_DNS_NODES_H_
