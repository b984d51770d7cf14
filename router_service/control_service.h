// The operators' service: topology, load, drain.
#ifndef EXPERTMESH_ROUTER_SERVICE_CONTROL_SERVICE_H_
#define EXPERTMESH_ROUTER_SERVICE_CONTROL_SERVICE_H_

#include "expertmesh/v1/control.grpc.pb.h"
#include "router_service/router.h"

namespace expertmesh {

// Thread-safe. Blocking methods, each on a thread of gRPC's.
class ControlService final : public v1::Control::Service {
 public:
  // `router` must outlive the service.
  explicit ControlService(Router* router) : router_(router) {}

  grpc::Status GetTopology(grpc::ServerContext* context, const v1::GetTopologyRequest* request,
                           v1::GetTopologyResponse* response) override;
  grpc::Status WatchTopology(grpc::ServerContext* context, const v1::WatchTopologyRequest* request,
                             grpc::ServerWriter<v1::GetTopologyResponse>* writer) override;
  grpc::Status GetLoad(grpc::ServerContext* context, const v1::GetLoadRequest* request,
                       v1::GetLoadResponse* response) override;
  grpc::Status DrainNode(grpc::ServerContext* context, const v1::DrainNodeRequest* request,
                         v1::DrainNodeResponse* response) override;

 private:
  Router* const router_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_ROUTER_SERVICE_CONTROL_SERVICE_H_
