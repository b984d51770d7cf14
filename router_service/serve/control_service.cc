#include "router_service/serve/control_service.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "expertmesh/v1/control.grpc.pb.h"

namespace expertmesh::serve {
namespace {

// How long a watcher may go on after its caller has left: how often it is looked for.
constexpr absl::Duration kGoneCheckInterval = absl::Milliseconds(500);
// Proxies end streams that are idle for 15 s and more.
constexpr absl::Duration kDefaultHeartbeat = absl::Seconds(10);

absl::Status WatchTopology(mesh::Fleet* fleet, const v1::WatchTopologyRequest& request,
                           Clock* clock, net::Watcher& watcher) {
  const absl::Duration heartbeat =
      request.heartbeat_ms() == 0 ? kDefaultHeartbeat : absl::Milliseconds(request.heartbeat_ms());
  absl::Mutex mutex;
  bool changed = true;
  const uint64_t subscription = fleet->Subscribe([&mutex, &changed] {
    absl::MutexLock lock(&mutex);
    changed = true;
  });
  absl::Time silent_until = absl::InfiniteFuture();
  while (!watcher.over()) {
    bool write = false;
    {
      absl::MutexLock lock(&mutex);
      mutex.AwaitWithTimeout(absl::Condition(&changed), std::min(kGoneCheckInterval, heartbeat));
      write = changed || clock->Now() >= silent_until;
      changed = false;
    }
    if (write) {
      v1::WatchTopologyResponse response;
      *response.mutable_topology() = fleet->Topology();
      if (!watcher.Write(response)) {
        break;
      }
      silent_until = clock->Now() + heartbeat;
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
      net::MethodOf<v1::Control>("GetTopology"), [router](const v1::GetTopologyRequest&) {
        v1::GetTopologyResponse response;
        *response.mutable_topology() = router->fleet->Topology();
        return response;
      }));
  spec->ordinary.push_back(net::OrdinaryMethod<v1::GetLoadRequest, v1::GetLoadResponse>(
      net::MethodOf<v1::Control>("GetLoad"),
      [router](const v1::GetLoadRequest&) { return router->get_load(); }));
  spec->ordinary.push_back(net::OrdinaryMethod<v1::DrainNodeRequest, v1::DrainNodeResponse>(
      net::MethodOf<v1::Control>("DrainNode"),
      [router](const v1::DrainNodeRequest& request) { return DrainNode(router->fleet, request); }));
  spec->watches.push_back(net::Watch<v1::WatchTopologyRequest>(
      net::MethodOf<v1::Control>("WatchTopology"),
      [router](const v1::WatchTopologyRequest& request, net::Watcher& watcher) {
        return WatchTopology(router->fleet, request, router->clock, watcher);
      }));
}

}  // namespace expertmesh::serve
