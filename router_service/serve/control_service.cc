#include "router_service/serve/control_service.h"

#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "expertmesh/v1/control.grpc.pb.h"

namespace expertmesh::serve {
namespace {

// How long a watcher may go on after its caller has left: how often it is looked for.
constexpr absl::Duration kGoneCheckInterval = absl::Milliseconds(500);

absl::Status WatchTopology(mesh::Fleet* fleet, net::Watcher& watcher) {
  absl::Mutex mutex;
  bool changed = true;
  const uint64_t subscription = fleet->Subscribe([&mutex, &changed] {
    absl::MutexLock lock(&mutex);
    changed = true;
  });
  while (!watcher.over()) {
    bool write = false;
    {
      absl::MutexLock lock(&mutex);
      mutex.AwaitWithTimeout(absl::Condition(&changed), kGoneCheckInterval);
      write = changed;
      changed = false;
    }
    if (write && !watcher.Write(fleet->Topology())) {
      break;
    }
  }
  fleet->Unsubscribe(subscription);
  return absl::OkStatus();
}

absl::StatusOr<v1::DrainNodeResponse> DrainNode(mesh::Fleet* fleet,
                                                const v1::DrainNodeRequest& request) {
  absl::StatusOr<v1::TopologyNode> node = fleet->Drain(request.address(), request.resume());
  if (!node.ok()) {
    return node.status();
  }
  v1::DrainNodeResponse response;
  *response.mutable_node() = *std::move(node);
  return response;
}

}  // namespace

void AddControlMethods(const ServedRouter* router, net::GrpcServerSpec* spec) {
  spec->ordinary.push_back(net::OrdinaryMethod<v1::GetTopologyRequest, v1::GetTopologyResponse>(
      net::MethodOf<v1::Control>("GetTopology"),
      [router](const v1::GetTopologyRequest&) { return router->fleet->Topology(); }));
  spec->ordinary.push_back(net::OrdinaryMethod<v1::GetLoadRequest, v1::GetLoadResponse>(
      net::MethodOf<v1::Control>("GetLoad"),
      [router](const v1::GetLoadRequest&) { return router->get_load(); }));
  spec->ordinary.push_back(net::OrdinaryMethod<v1::DrainNodeRequest, v1::DrainNodeResponse>(
      net::MethodOf<v1::Control>("DrainNode"),
      [router](const v1::DrainNodeRequest& request) { return DrainNode(router->fleet, request); }));
  spec->watches.push_back(net::Watch<v1::WatchTopologyRequest>(
      net::MethodOf<v1::Control>("WatchTopology"),
      [router](const v1::WatchTopologyRequest&, net::Watcher& watcher) {
        return WatchTopology(router->fleet, watcher);
      }));
}

}  // namespace expertmesh::serve
