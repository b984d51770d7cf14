// A gRPC server on completion queues with threads of its own, for any service: methods that move
// tensors are served raw (frames, no parsing), ordinary methods by ordinary grpc::Service code,
// beside health checks and reflection.
//
// How to serve a service whose Forward (unary) and ForwardStream are raw:
//
//   class RouterService final
//       : public v1::Router::WithRawMethod_Forward<
//             v1::Router::WithRawMethod_ForwardStream<v1::Router::Service>> {
//     grpc::Status DescribeModel(...) override;   // Ordinary, blocking, own thread.
//   };
//   RouterService service;
//   GrpcServerSpec spec;
//   spec.address = "0.0.0.0:7400";
//   spec.services = {&service};
//   spec.unary.push_back({[&service](auto... a) { service.RequestForward(a...); }, OnForward});
//   spec.streams.push_back(
//       {[&service](auto... a) { service.RequestForwardStream(a...); }, OpenForwardStream});
//   ASSIGN_OR_RETURN(std::unique_ptr<GrpcServer> server, GrpcServer::Start(std::move(spec)));
#ifndef EXPERTMESH_COMMON_NET_GRPC_SERVER_H_
#define EXPERTMESH_COMMON_NET_GRPC_SERVER_H_

#include <grpcpp/impl/codegen/async_stream.h>
#include <grpcpp/impl/codegen/async_unary_call.h>
#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/grpc_options.h"
#include "common/transport/transport.h"
#include "common/wire/frame.h"

namespace expertmesh {

// What a raw unary method learns about a call besides its message.
struct UnaryContext {
  // On Clock::Real(); InfiniteFuture: none.
  absl::Time deadline = absl::InfiniteFuture();
  // W3C trace context from the metadata; empty when absent. Not checked.
  std::string traceparent;
  std::string tracestate;
  // For logs, as gRPC writes it ("ipv4:10.0.0.7:41234").
  std::string peer;
  // True once the caller has gone or its deadline has passed: the answer is no longer wanted. May
  // be kept and called from any thread at any time.
  std::function<bool()> cancelled;
};

// Answers a call: call it once, from any thread; later calls are ignored. When all copies are gone
// and none was called, the caller gets INTERNAL.
using UnaryResponder = std::function<void(absl::StatusOr<Frame>)>;

// Runs on a network thread; must not block.
using UnaryHandler = std::function<void(Frame request, const UnaryContext&, UnaryResponder)>;

// Called on a network thread for every new stream; must not block, must not return null.
//
// Frames of the stream go to the handler. The handler is destroyed when no more can come: the
// client has closed its side, or the stream is gone, or the server shuts down. In the first and the
// last case answers can still be sent, and the stream ends (OK on half-close, UNAVAILABLE on
// shutdown) when the last reference to the sink is dropped: keep one for every request that is
// being worked on and none anywhere else.
//
// FrameSink::Send gives INVALID_ARGUMENT for a frame over GrpcOptions::max_message_bytes, and
// RESOURCE_EXHAUSTED when the client has left send_queue_bytes unread; that breaks the stream.
using StreamFactory = std::function<std::unique_ptr<StreamHandler>(std::shared_ptr<FrameSink>)>;

// Request* of a generated WithRawMethod_* class.
using RequestRawUnary = std::function<void(
    grpc::ServerContext*, grpc::ByteBuffer*, grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>*,
    grpc::CompletionQueue*, grpc::ServerCompletionQueue*, void*)>;
using RequestRawStream = std::function<void(
    grpc::ServerContext*, grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>*,
    grpc::CompletionQueue*, grpc::ServerCompletionQueue*, void*)>;

struct RawUnaryMethod {
  RequestRawUnary request;
  UnaryHandler handler;
};

struct RawStreamMethod {
  RequestRawStream request;
  StreamFactory factory;
};

struct GrpcServerSpec {
  // host:port or unix:/path. Port 0: a free one, see port().
  std::string address;
  GrpcOptions options;
  // Not owned; must outlive the server. A method listed below must be raw in its service.
  std::vector<grpc::Service*> services;
  std::vector<RawUnaryMethod> unary;
  std::vector<RawStreamMethod> streams;
  // Bytes of answers queued on one stream before it is broken.
  size_t send_queue_bytes = size_t{64} << 20;
  // Network threads; 0: 1 up to 4 cores, then a quarter of the cores, at most 4.
  int pollers = 0;
  // Overall health (service name "") from the start.
  bool serving = true;
};

// Thread-safe.
class GrpcServer {
 public:
  // Listens and serves when it returns.
  //   UNAVAILABLE       the address cannot be bound; the message names address and reason.
  //   INVALID_ARGUMENT  the address makes no sense.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(GrpcServerSpec spec);

  virtual ~GrpcServer() = default;  // Shutdown(0) if it was not called.

  // Port that is bound; 0 for unix sockets.
  virtual int port() const = 0;

  // Answer of grpc.health.v1 for `service` ("" is the process as a whole).
  virtual void SetServing(const std::string& service, bool serving) = 0;

  // Stops accepting, tells clients to go elsewhere, lets calls finish for `grace` and then cancels
  // them: takes little longer than `grace`, whatever clients and handlers do, as long as blocking
  // methods of `services` return once their context is cancelled. No handler runs afterwards.
  // Health is NOT_SERVING from the start of it.
  virtual void Shutdown(absl::Duration grace) = 0;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_NET_GRPC_SERVER_H_
