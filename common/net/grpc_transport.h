// Transport over gRPC: what ships.
//
// Each connection has two TCP connections to its node, so that tensors never hold up heartbeats:
// Expert.Compute on one, Expert.WatchStatus on the other. It is up when the node has accepted the
// first and described itself on the second, and down when either ends or nothing has been heard for
// the heartbeat timeout, pauses of this process itself aside. Every attempt uses fresh channels, so
// pauses between attempts are governed here, by the Clock, and not by gRPC.
#ifndef EXPERTMESH_COMMON_NET_GRPC_TRANSPORT_H_
#define EXPERTMESH_COMMON_NET_GRPC_TRANSPORT_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"
#include "common/net/grpc_options.h"
#include "common/net/grpc_runtime.h"
#include "common/transport/transport.h"

namespace expertmesh::net {

struct GrpcTransportOptions {
  // `max_message_bytes` is replaced by `frame_limit_bytes`.
  GrpcOptions grpc = {};
  // Largest frame sent and accepted. Must not be less than what nodes send.
  size_t frame_limit_bytes = size_t{8} << 20;
  // Bytes that may be queued per connection.
  size_t window_bytes = size_t{64} << 20;
  // Longest silence the node is asked to keep, and the silence after which it counts as lost (must
  // be larger).
  absl::Duration heartbeat = absl::Seconds(1);
  absl::Duration heartbeat_timeout = absl::Seconds(3);
  // Transport::AwakeSince(). Null: that of the runtime on Clock::Real(), none on any other clock.
  std::function<absl::Time()> awake_since = nullptr;
  // Pause after a failed attempt to connect: backoff_initial at first, doubled after each failure
  // up to backoff_max, and back to backoff_initial after a success.
  absl::Duration backoff_initial = absl::Milliseconds(100);
  absl::Duration backoff_max = absl::Seconds(1);
};

// Thread-safe.
class GrpcTransport final : public Transport {
 public:
  // `runtime` and `clock` must outlive the transport.
  GrpcTransport(GrpcRuntime* runtime, Clock* clock, GrpcTransportOptions options);

  // `address`: host:port or unix:/path.
  std::unique_ptr<NodeConnection> Connect(std::string address, NodeObserver* observer) override;
  absl::Time AwakeSince() const override;

 private:
  GrpcRuntime* const runtime_;
  Clock* const clock_;
  const GrpcTransportOptions options_;
  TimerQueue timers_;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_GRPC_TRANSPORT_H_
