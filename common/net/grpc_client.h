// Calls to any gRPC service in frames, on the completion queues of a GrpcRuntime: no blocking, no
// parsing, no copy of what is sent.
#ifndef EXPERTMESH_COMMON_NET_GRPC_CLIENT_H_
#define EXPERTMESH_COMMON_NET_GRPC_CLIENT_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/grpc_options.h"
#include "common/net/grpc_runtime.h"
#include "common/wire/frame.h"

namespace expertmesh::net {

struct CallOptions {
  // On Clock::Real(). InfiniteFuture: none.
  absl::Time deadline = absl::InfiniteFuture();
  // Keys in lower case, for example {"traceparent", "00-..."}.
  std::vector<std::pair<std::string, std::string>> metadata;
  // Waits for a connection (until the deadline) instead of failing with UNAVAILABLE at once.
  bool wait_for_ready = false;
  // UnaryCall: compresses the request, on the thread that calls.
  bool gzip = false;
  // OpenStream: bytes that may be queued; Send refuses more.
  size_t send_queue_bytes = size_t{64} << 20;
};

// A call under way. Thread-safe. Dropping it does not end the call.
class ClientCall {
 public:
  virtual ~ClientCall() = default;
  // Ends the call with CANCELLED unless it has ended already.
  virtual void Cancel() = 0;
};

// The client's end of a bidirectional (or, after one frame and CloseSend, server-streaming) call.
class ClientStream : public ClientCall {
 public:
  // Queues one message; never blocks. Allowed from the start, before the connection is there.
  //   UNAVAILABLE         the stream has ended; on_closed says why.
  //   RESOURCE_EXHAUSTED  CallOptions::send_queue_bytes are queued already.
  //   INVALID_ARGUMENT    larger than GrpcOptions::max_message_bytes.
  //   FAILED_PRECONDITION after CloseSend.
  virtual absl::Status Send(Frame frame) = 0;

  // No more Send; what is queued still goes out. The server then ends the stream when it is done.
  virtual void CloseSend() = 0;

  // Bytes queued and not yet handed to the network.
  virtual size_t QueuedBytes() const = 0;

  // No frame is awaited until the next Send: after the frame at hand none is read before that, or
  // before ResumeReading. gRPC tells the server at once that a read has begun, in a message of its
  // own, which wakes it; so the read begins behind the frame that wakes it anyway. While reading is
  // paused, the end of the stream is not noticed.
  virtual void PauseReading() = 0;
  virtual void ResumeReading() = 0;
};

// Calls for one stream come one after the other, from a network thread; they must not block.
struct StreamCallbacks {
  // The server has accepted the stream. May be empty.
  std::function<void()> on_open;
  std::function<void(Frame)> on_frame;
  // The last call, exactly once. OK: the server ended the stream in good order.
  std::function<void(const absl::Status&)> on_closed;
};

// Thread-safe. One connection to one target. May be destroyed while calls are under way.
class GrpcClient {
 public:
  // `runtime` must outlive the client; its destructor cancels what is still under way.
  GrpcClient(GrpcRuntime* runtime, const std::string& target, const GrpcOptions& options);

  // `method` is the full name, "/expertmesh.v1.Router/Forward". `done` runs exactly once, on a
  // network thread (on this one when the runtime is shutting down), and must not block. A request
  // over the message limit gives RESOURCE_EXHAUSTED.
  std::shared_ptr<ClientCall> UnaryCall(const std::string& method, const Frame& request,
                                        const CallOptions& call_options,
                                        std::function<void(absl::StatusOr<Frame>)> done);

  // Never null.
  std::shared_ptr<ClientStream> OpenStream(const std::string& method,
                                           const CallOptions& call_options,
                                           StreamCallbacks callbacks);

  // For generated stubs, where frames bring nothing.
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  GrpcRuntime* const runtime_;
  const GrpcOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_GRPC_CLIENT_H_
