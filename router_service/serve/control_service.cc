#include "router_service/serve/control_service.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "absl/time/time.h"
#include "common/base/peer_text.h"
#include "common/base/status_macros.h"
#include "common/net/watch_method.h"
#include "expertmesh/v1/control.grpc.pb.h"

namespace expertmesh::serve {
namespace {

// Proxies end streams that are idle for 15 s and more.
constexpr absl::Duration kDefaultHeartbeat = absl::Seconds(10);
constexpr size_t kMostAddress = 256;
constexpr absl::Duration kMinHeartbeat = absl::Milliseconds(10);

absl::StatusOr<absl::Duration> HeartbeatOf(const Frame& frame) {
  ASSIGN_OR_RETURN(const v1::WatchTopologyRequest request,
                   net::ParseRequest<v1::WatchTopologyRequest>(frame));
  return request.heartbeat_ms() == 0
             ? kDefaultHeartbeat
             : std::max(kMinHeartbeat, absl::Milliseconds(request.heartbeat_ms()));
}

net::WatchedState ReadTopology(const mesh::Fleet& fleet) {
  v1::WatchTopologyResponse response;
  *response.mutable_topology() = fleet.Topology();
  const Frame frame(response.SerializeAsString());
  return {.version = response.topology().epoch(), .whole = frame, .brief = frame};
}

net::WatchMethod WatchTopology(mesh::Fleet* fleet) {
  return {.name = net::MethodOf<v1::Control>("WatchTopology"),
          .heartbeat = &HeartbeatOf,
          .read = [fleet] { return ReadTopology(*fleet); },
          .subscribe =
              [fleet](std::function<void()> on_change) {
                const uint64_t id = fleet->Subscribe(std::move(on_change));
                return std::shared_ptr<void>(fleet, [fleet, id](void*) { fleet->Unsubscribe(id); });
              },
          .fresh = absl::Milliseconds(100)};
}

absl::StatusOr<v1::DrainNodeResponse> DrainNode(mesh::Fleet* fleet,
                                                const v1::DrainNodeRequest& request) {
  // No node has an address that is changed by this; errors show it.
  absl::StatusOr<v1::TopologyNode> node =
      fleet->Drain(PeerText(request.address(), kMostAddress), request.resume());
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
  spec->ordinary.push_back(net::LastingMethod<v1::DrainNodeRequest, v1::DrainNodeResponse>(
      net::MethodOf<v1::Control>("DrainNode"),
      [router](const v1::DrainNodeRequest& request) { return DrainNode(router->fleet, request); }));
  spec->watches.push_back(WatchTopology(router->fleet));
  spec->clock = router->clock;
}

}  // namespace expertmesh::serve
