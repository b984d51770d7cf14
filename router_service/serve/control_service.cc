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
#include "router_service/serve/trace_service.h"

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

net::WatchedState ReadTopology(const ServedRouter& router) {
  v1::WatchTopologyResponse response;
  *response.mutable_topology() = TopologyOf(router);
  const Frame frame(response.SerializeAsString());
  return {.version = response.topology().revision(), .whole = frame, .brief = frame};
}

// Changes of the fleet alone do not say that balancing has stopped: nothing may change from then
// on.
net::WatchMethod WatchTopology(const ServedRouter* router, BalanceWatch* balance) {
  mesh::Fleet* const fleet = router->fleet;
  return {.name = net::MethodOf<v1::Control>("WatchTopology"),
          .heartbeat = &HeartbeatOf<v1::WatchTopologyRequest>,
          .read = [router] { return ReadTopology(*router); },
          .subscribe =
              [fleet, balance](std::function<void()> on_change) {
                std::shared_ptr<void> alive = balance->Subscribe(on_change);
                const uint64_t id = fleet->Subscribe(std::move(on_change));
                return std::shared_ptr<void>(fleet,
                                             [fleet, id, alive](void*) { fleet->Unsubscribe(id); });
              },
          .fresh = absl::Milliseconds(100)};
}

// A method that may wait, and whose answer goes into one field of its response.
template <typename Request, typename Response, typename Change, typename Answer>
net::BlockingMethod Changing(const char* name, Change change, Answer* (Response::*field)()) {
  return net::LastingMethod<Request, Response>(
      net::MethodOf<v1::Control>(name),
      [change = std::move(change), field](const Request& request) -> absl::StatusOr<Response> {
        Response response;
        ASSIGN_OR_RETURN(*(response.*field)(), change(request));
        return response;
      });
}

net::WatchedState ReadBalance(const balance_control::Controller& controller) {
  v1::WatchBalanceResponse response;
  *response.mutable_balance() = controller.GetBalance();
  const Frame frame(response.SerializeAsString());
  return {.version = response.balance().epoch(), .whole = frame, .brief = frame};
}

net::WatchMethod WatchBalance(balance_control::Controller* controller, BalanceWatch* balance) {
  return {.name = net::MethodOf<v1::Control>("WatchBalance"),
          .heartbeat = &HeartbeatOf<v1::WatchBalanceRequest>,
          .read = [controller] { return ReadBalance(*controller); },
          .subscribe =
              [controller, balance](std::function<void()> on_change) {
                using Both = std::pair<std::shared_ptr<void>, std::shared_ptr<void>>;
                std::shared_ptr<void> alive = balance->Subscribe(on_change);
                return std::make_shared<Both>(std::move(alive),
                                              controller->Subscribe(std::move(on_change)));
              },
          .fresh = absl::Milliseconds(100)};
}

void AddBalanceMethods(balance_control::Controller* controller, net::GrpcServerSpec* spec) {
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
  spec->ordinary.push_back(Changing<v1::SetBalanceRequest, v1::SetBalanceResponse>(
      "SetBalance", [controller](const auto& request) { return controller->SetBalance(request); },
      &v1::SetBalanceResponse::mutable_balance));
  spec->ordinary.push_back(Changing<v1::SetBiasRequest, v1::SetBiasResponse>(
      "SetBias", [controller](const auto& request) { return controller->SetBias(request); },
      &v1::SetBiasResponse::mutable_balance));
}

net::WatchedState ReadPlacement(const balance_control::Controller& controller) {
  v1::WatchPlacementResponse response;
  *response.mutable_placement() = controller.GetPlacement(/*with_plan=*/false);
  const Frame frame(response.SerializeAsString());
  return {.version = response.placement().epoch(), .whole = frame, .brief = frame};
}

void AddPlacementMethods(balance_control::Controller* controller, net::GrpcServerSpec* spec) {
  spec->watches.push_back({.name = net::MethodOf<v1::Control>("WatchPlacement"),
                           .heartbeat = &HeartbeatOf<v1::WatchPlacementRequest>,
                           .read = [controller] { return ReadPlacement(*controller); },
                           .subscribe =
                               [controller](std::function<void()> on_change) {
                                 return controller->Subscribe(std::move(on_change));
                               },
                           .fresh = absl::Milliseconds(100)});
  spec->ordinary.push_back(net::OrdinaryMethod<v1::GetPlacementRequest, v1::GetPlacementResponse>(
      net::MethodOf<v1::Control>("GetPlacement"), [controller](const v1::GetPlacementRequest&) {
        v1::GetPlacementResponse response;
        *response.mutable_placement() = controller->GetPlacement(/*with_plan=*/true);
        return response;
      }));
  spec->ordinary.push_back(Changing<v1::SetPlacementRequest, v1::SetPlacementResponse>(
      "SetPlacement",
      [controller](const auto& request) { return controller->SetPlacement(request); },
      &v1::SetPlacementResponse::mutable_placement));
  spec->ordinary.push_back(Changing<v1::PlanPlacementRequest, v1::PlanPlacementResponse>(
      "PlanPlacement",
      [controller](const auto& request) { return controller->PlanPlacement(request); },
      &v1::PlanPlacementResponse::mutable_proposal));
  spec->ordinary.push_back(Changing<v1::ApplyPlacementRequest, v1::ApplyPlacementResponse>(
      "ApplyPlacement",
      [controller](const auto& request) { return controller->ApplyPlacement(request); },
      &v1::ApplyPlacementResponse::mutable_placement));
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

v1::Topology TopologyOf(const ServedRouter& router) {
  v1::Topology topology = router.fleet->Topology();
  *topology.mutable_balance() = router.controller->Summary();
  return topology;
}

void AddControlMethods(const ServedRouter* router, BalanceWatch* balance,
                       net::GrpcServerSpec* spec) {
  spec->ordinary.push_back(net::OrdinaryMethod<v1::GetTopologyRequest, v1::GetTopologyResponse>(
      net::MethodOf<v1::Control>("GetTopology"), [router](const v1::GetTopologyRequest&) {
        v1::GetTopologyResponse response;
        *response.mutable_topology() = TopologyOf(*router);
        return response;
      }));
  spec->ordinary.push_back(net::LastingMethod<v1::DrainNodeRequest, v1::DrainNodeResponse>(
      net::MethodOf<v1::Control>("DrainNode"),
      [router](const v1::DrainNodeRequest& request) { return DrainNode(router->fleet, request); }));
  spec->watches.push_back(WatchTopology(router, balance));
  spec->watches.push_back(WatchBalance(router->controller, balance));
  AddTraceMethods(router->tracer, spec);
  AddBalanceMethods(router->controller, spec);
  AddPlacementMethods(router->controller, spec);
  spec->clock = router->clock;
}

}  // namespace expertmesh::serve
