#include "router_service/serve/authority_service.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "common/base/status_macros.h"
#include "common/net/watch_method.h"
#include "expertmesh/internal/v1/authority.grpc.pb.h"

namespace expertmesh::serve {
namespace {

using balance_control::Controller;

constexpr absl::Duration kDefaultHeartbeat = absl::Seconds(1);
constexpr absl::Duration kMinHeartbeat = absl::Milliseconds(10);

absl::StatusOr<absl::Duration> HeartbeatOf(const Controller& controller, const Frame& frame) {
  ASSIGN_OR_RETURN(const internal::v1::FollowRequest request,
                   net::ParseRequest<internal::v1::FollowRequest>(frame));
  RETURN_IF_ERROR(controller.CheckFollower(request));
  return request.heartbeat_ms() == 0
             ? kDefaultHeartbeat
             : std::max(kMinHeartbeat, absl::Milliseconds(request.heartbeat_ms()));
}

net::WatchedState ReadDecision(const Controller& controller) {
  net::WatchedState state;
  internal::v1::FollowResponse response;
  internal::v1::Decision& decision = *response.mutable_decision();
  decision = controller.DecisionInForce(&state.version);
  state.whole = Frame(response.SerializeAsString());
  decision.clear_layers();
  decision.clear_plan();
  decision.set_heartbeat(true);
  state.brief = Frame(response.SerializeAsString());
  return state;
}

}  // namespace

void AddAuthorityMethods(Controller* controller, net::GrpcServerSpec* spec) {
  spec->watches.push_back(
      {.name = net::MethodOf<internal::v1::Authority>("Follow"),
       .heartbeat = [controller](const Frame& frame) { return HeartbeatOf(*controller, frame); },
       .read = [controller] { return ReadDecision(*controller); },
       .subscribe =
           [controller](std::function<void()> on_change) {
             return controller->Subscribe(std::move(on_change));
           }});
  spec->ordinary.push_back(
      net::OrdinaryMethod<internal::v1::ReportLoadRequest, internal::v1::ReportLoadResponse>(
          net::MethodOf<internal::v1::Authority>("ReportLoad"),
          [controller](const internal::v1::ReportLoadRequest& request) {
            return controller->Report(request);
          }));
}

}  // namespace expertmesh::serve
