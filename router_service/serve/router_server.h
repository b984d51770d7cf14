// Serves a Router over gRPC: services Router and Control, health and reflection.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_ROUTER_SERVER_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_ROUTER_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/grpc_options.h"
#include "common/net/grpc_runtime.h"
#include "router_service/router.h"

namespace expertmesh::serve {

struct RouterServerOptions {
  // host:port; port 0: a free one.
  std::string address;
  net::GrpcOptions grpc;
  // As GrpcServerSpec::runtime: best the one of the transport to the nodes.
  net::GrpcRuntime* runtime = nullptr;
};

// Thread-safe.
class RouterServer {
 public:
  // Serves when it returns. Health: "liveness" is SERVING from now on; "", "readiness" and
  // "expertmesh.v1.Router" while every expert has a ready node. `router` must outlive the server.
  //   UNAVAILABLE  the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<RouterServer>> Start(router::Router* router,
                                                             const RouterServerOptions& options);
  virtual ~RouterServer() = default;

  virtual int port() const = 0;

  // Turns unhealthy, lets calls finish for `grace`, then ends them.
  virtual void Shutdown(absl::Duration grace) = 0;
};

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_ROUTER_SERVER_H_
