// AuthorityLinks over gRPC.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_GRPC_AUTHORITY_LINKS_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_GRPC_AUTHORITY_LINKS_H_

#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/timer_queue.h"
#include "common/net/grpc_runtime.h"
#include "router_service/balance/authority_link.h"

namespace expertmesh::serve {

class GrpcAuthorityLinks final : public balance_control::AuthorityLinks {
 public:
  // Pointers must outlive the links.
  GrpcAuthorityLinks(net::GrpcRuntime* runtime, Clock* clock);

  std::unique_ptr<balance_control::AuthorityLink> Connect(
      const std::string& address, const internal::v1::FollowRequest& request,
      balance_control::AuthorityObserver* observer) override;

 private:
  net::GrpcRuntime* const runtime_;
  Clock* const clock_;
  TimerQueue timers_;
};

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_GRPC_AUTHORITY_LINKS_H_
