#include "router_service/control_service.h"

#include "absl/synchronization/mutex.h"
#include "common/net/grpc_status.h"

namespace expertmesh {
namespace {

// How long a watcher may go on after its caller has left: how often the context is looked at.
constexpr absl::Duration kCancelCheckInterval = absl::Milliseconds(500);

}  // namespace

grpc::Status ControlService::GetTopology(grpc::ServerContext*, const v1::GetTopologyRequest*,
                                         v1::GetTopologyResponse* response) {
  *response = router_->fleet().Topology();
  return grpc::Status::OK;
}

grpc::Status ControlService::WatchTopology(grpc::ServerContext* context,
                                           const v1::WatchTopologyRequest*,
                                           grpc::ServerWriter<v1::GetTopologyResponse>* writer) {
  absl::Mutex mutex;
  bool changed = true;
  const uint64_t subscription = router_->fleet().Subscribe([&mutex, &changed] {
    absl::MutexLock lock(&mutex);
    changed = true;
  });
  while (!context->IsCancelled()) {
    bool write = false;
    {
      absl::MutexLock lock(&mutex);
      mutex.AwaitWithTimeout(absl::Condition(&changed), kCancelCheckInterval);
      write = changed;
      changed = false;
    }
    if (write && !writer->Write(router_->fleet().Topology())) {
      break;
    }
  }
  router_->fleet().Unsubscribe(subscription);
  return grpc::Status::OK;
}

grpc::Status ControlService::GetLoad(grpc::ServerContext*, const v1::GetLoadRequest*,
                                     v1::GetLoadResponse* response) {
  *response = router_->GetLoad();
  return grpc::Status::OK;
}

grpc::Status ControlService::DrainNode(grpc::ServerContext*, const v1::DrainNodeRequest* request,
                                       v1::DrainNodeResponse* response) {
  absl::StatusOr<v1::TopologyNode> node =
      router_->fleet().Drain(request->address(), request->resume());
  if (!node.ok()) {
    return ToGrpc(node.status());
  }
  *response->mutable_node() = *std::move(node);
  return grpc::Status::OK;
}

}  // namespace expertmesh
