// Serves a NodeEndpoint over gRPC: service expertmesh.internal.v1.Expert, health and reflection.
#ifndef EXPERTMESH_EXPERT_SERVICE_NODE_SERVER_H_
#define EXPERTMESH_EXPERT_SERVICE_NODE_SERVER_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/net/grpc_options.h"
#include "common/transport/call_counter.h"
#include "common/transport/transport.h"

namespace expertmesh::node {

struct NodeServerOptions {
  // host:port or unix:/path. Port 0: a free one.
  std::string address;
  // `max_message_bytes` is replaced by `max_frame_bytes`.
  net::GrpcOptions grpc = {};
  // Largest frame; a larger one ends its stream with RESOURCE_EXHAUSTED.
  size_t max_frame_bytes = size_t{8} << 20;
  // Bytes of answers queued on one stream before it is broken.
  size_t send_queue_bytes = size_t{64} << 20;
  // Network threads; 0: by the number of cores.
  int pollers = 0;
  // As GrpcServerSpec::counter.
  CallCounter* counter = nullptr;
  // Measures heartbeats.
  Clock* clock = Clock::Real();
};

// Thread-safe.
class NodeServer {
 public:
  // Serves when it returns. `endpoint` must outlive the server. Health: "live"
  // is SERVING from now on; "", "ready" and "expertmesh.internal.v1.Expert" while the endpoint is
  // READY.
  //   UNAVAILABLE  the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<NodeServer>> Start(NodeEndpoint* endpoint,
                                                           const NodeServerOptions& options);

  virtual ~NodeServer() = default;  // Shutdown(0) if it was not called.

  virtual int port() const = 0;

  // As GrpcServer::Shutdown. The endpoint is not used afterwards. LoadExperts and UnloadExperts
  // that are running are waited for.
  virtual void Shutdown(absl::Duration grace) = 0;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_NODE_SERVER_H_
