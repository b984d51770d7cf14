// Serves a Router over gRPC: services Router and Control, health and reflection.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_ROUTER_SERVER_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_ROUTER_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/grpc_options.h"
#include "common/net/grpc_runtime.h"
#include "common/tensor/buffer_pool.h"
#include "common/transport/call_counter.h"
#include "expertmesh/v1/router.pb.h"
#include "router_service/balance/controller.h"
#include "router_service/mesh/fleet.h"
#include "router_service/serve/forward_service.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::serve {

// What a server offers to callers.
struct ServedRouter {
  ForwardService* forward = nullptr;
  mesh::Fleet* fleet = nullptr;
  balance_control::Controller* controller = nullptr;
  Clock* clock = nullptr;
  // For what is encoded as an answer.
  BufferPool* buffers = nullptr;
  std::function<v1::DescribeModelResponse()> describe_model;
  // Null: nothing is traced.
  tracing::Tracer* tracer = nullptr;
};

struct RouterServerOptions {
  // host:port; port 0: a free one.
  std::string address;
  net::GrpcOptions grpc;
  // As GrpcServerSpec::max_buffered_bytes.
  size_t max_buffered_bytes = size_t{512} << 20;
  // As GrpcServerSpec::counter.
  CallCounter* counter = nullptr;
  // As GrpcServerSpec::runtime: best the one of the transport to the nodes.
  net::GrpcRuntime* runtime = nullptr;
};

// Thread-safe.
class RouterServer {
 public:
  // Serves when it returns. Health: "live" and "expertmesh.v1.Control" are SERVING from now on; "",
  // "ready" and "expertmesh.v1.Router" while every expert has a ready node; "expertmesh.balance"
  // while central management is alive. What `router` points to
  // must outlive the server.
  //   UNAVAILABLE  the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<RouterServer>> Start(const ServedRouter& router,
                                                             const RouterServerOptions& options);
  virtual ~RouterServer() = default;

  virtual int port() const = 0;

  // As GrpcServer::TrimThreads().
  virtual void TrimThreads() = 0;

  // Turns unhealthy, lets calls finish for `grace`, then ends them.
  virtual void Shutdown(absl::Duration grace) = 0;
};

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_ROUTER_SERVER_H_
