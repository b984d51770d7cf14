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

// `Request`: of a watch.
template <typename Request>
absl::StatusOr<absl::Duration> HeartbeatOf(const Frame& frame) {
  ASSIGN_OR_RETURN(const Request request, net::ParseRequest<Request>(frame));
  return request.heartbeat_ms() == 0
             ? kDefaultHeartbeat
             : std::max(kMinHeartbeat, absl::Milliseconds(request.heartbeat_ms()));
}

v1::Topology TopologyOf(const ServedRouter& router) {
  v1::Topology topology = router.fleet->Topology();
  *topology.mutable_balance() = router.controller->Summary();
  return topology;
}

net::WatchedState ReadTopology(const ServedRouter& router) {
  v1::WatchTopologyResponse response;
  *response.mutable_topology() = TopologyOf(router);
  const Frame frame(response.SerializeAsString());
  return {.version = response.topology().revision(), .whole = frame, .brief = frame};
}

net::WatchMethod WatchTopology(const ServedRouter* router) {
  mesh::Fleet* const fleet = router->fleet;
  return {.name = net::MethodOf<v1::Control>("WatchTopology"),
          .heartbeat = &HeartbeatOf<v1::WatchTopologyRequest>,
          .read = [router] { return ReadTopology(*router); },
          .subscribe =
              [fleet](std::function<void()> on_change) {
                const uint64_t id = fleet->Subscribe(std::move(on_change));
                return std::shared_ptr<void>(fleet, [fleet, id](void*) { fleet->Unsubscribe(id); });
              },
          .fresh = absl::Milliseconds(100)};
}

net::WatchedState ReadBalance(const balance_control::Controller& controller) {
  v1::WatchBalanceResponse response;
  *response.mutable_balance() = controller.GetBalance();
  const Frame frame(response.SerializeAsString());
  return {.version = response.balance().epoch(), .whole = frame, .brief = frame};
}

void AddBalanceMethods(balance_control::Controller* controller, net::GrpcServerSpec* spec) {
  spec->watches.push_back({.name = net::MethodOf<v1::Control>("WatchBalance"),
                           .heartbeat = &HeartbeatOf<v1::WatchBalanceRequest>,
                           .read = [controller] { return ReadBalance(*controller); },
                           .subscribe =
                               [controller](std::function<void()> on_change) {
                                 return controller->Subscribe(std::move(on_change));
                               },
                           .fresh = absl::Milliseconds(100)});
  spec->ordinary.push_back(net::OrdinaryMethod<v1::GetLoadRequest, v1::GetLoadResponse>(
      net::MethodOf<v1::Control>("GetLoad"),
      [controller](const v1::GetLoadRequest& request) { return controller->GetLoad(request); }));
  spec->ordinary.push_back(net::OrdinaryMethod<v1::GetBalanceRequest, v1::GetBalanceResponse>(
      net::MethodOf<v1::Control>("GetBalance"), [controller](const v1::GetBalanceRequest&) {
        v1::GetBalanceResponse response;
        *response.mutable_balance() = controller->GetBalance();
        return response;
      }));
  spec->ordinary.push_back(net::OrdinaryMethod<v1::GetBiasRequest, v1::GetBiasResponse>(
      net::MethodOf<v1::Control>("GetBias"),
      [controller](const v1::GetBiasRequest& request) -> absl::StatusOr<v1::GetBiasResponse> {
        v1::GetBiasResponse response;
        ASSIGN_OR_RETURN(*response.mutable_bias(), controller->GetBias(request.epoch()));
        return response;
      }));
  spec->ordinary.push_back(net::LastingMethod<v1::SetBalanceRequest, v1::SetBalanceResponse>(
      net::MethodOf<v1::Control>("SetBalance"),
      [controller](const v1::SetBalanceRequest& request) -> absl::StatusOr<v1::SetBalanceResponse> {
        v1::SetBalanceResponse response;
        ASSIGN_OR_RETURN(*response.mutable_balance(), controller->SetBalance(request));
        return response;
      }));
  spec->ordinary.push_back(net::LastingMethod<v1::SetBiasRequest, v1::SetBiasResponse>(
      net::MethodOf<v1::Control>("SetBias"),
      [controller](const v1::SetBiasRequest& request) -> absl::StatusOr<v1::SetBiasResponse> {
        v1::SetBiasResponse response;
        ASSIGN_OR_RETURN(*response.mutable_balance(), controller->SetBias(request));
        return response;
      }));
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
        *response.mutable_topology() = TopologyOf(*router);
        return response;
      }));
  spec->ordinary.push_back(net::LastingMethod<v1::DrainNodeRequest, v1::DrainNodeResponse>(
      net::MethodOf<v1::Control>("DrainNode"),
      [router](const v1::DrainNodeRequest& request) { return DrainNode(router->fleet, request); }));
  spec->watches.push_back(WatchTopology(router));
  AddBalanceMethods(router->controller, spec);
  spec->clock = router->clock;
}

}  // namespace expertmesh::serve
