// A gRPC server on completion queues with threads of its own, for any services: methods that move
// tensors are served raw (frames, no parsing), ordinary methods by functions that may block, beside
// health checks and reflection.
//
//   GrpcServerSpec spec;
//   spec.address = "0.0.0.0:7400";
//   spec.unary = {{"/expertmesh.v1.Router/Forward", OnForward}};
//   spec.streams = {{"/expertmesh.v1.Router/ForwardStream", OpenForwardStream}};
//   spec.ordinary = {OrdinaryMethod<v1::DescribeModelRequest, v1::DescribeModelResponse>(
//       "/expertmesh.v1.Router/DescribeModel", [](const v1::DescribeModelRequest&) {...})};
//   ASSIGN_OR_RETURN(std::unique_ptr<GrpcServer> server, GrpcServer::Start(std::move(spec)));
#ifndef EXPERTMESH_COMMON_NET_GRPC_SERVER_H_
#define EXPERTMESH_COMMON_NET_GRPC_SERVER_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/net/grpc_options.h"
#include "common/net/grpc_runtime.h"
#include "common/net/watch_method.h"
#include "common/transport/call_context.h"
#include "common/transport/call_counter.h"
#include "common/transport/transport.h"
#include "common/wire/frame.h"

namespace expertmesh::net {

// Answers a call: call it once, from any thread; later calls are ignored. When all copies are gone
// and none was called, the caller gets INTERNAL.
using UnaryResponder = std::function<void(absl::StatusOr<Frame>)>;

// Runs on a network thread; must not block.
using UnaryHandler = std::function<void(Frame request, const CallContextPtr&, UnaryResponder)>;

// The way back to the client of a stream.
class ServerStreamSink : public FrameSink {
 public:
  // Ends the stream with `why`, which is not OK, after the frames that were sent.
  virtual void Fail(const absl::Status& why) = 0;

  // True once no more frames come from the client and the stream only waits for its sink to go: it
  // was failed, is too old, or is gone. Answers to what came before may still be sent.
  virtual bool IsEnding() const = 0;

  // For states of which only the newest matters: `make` is asked for the frame, which is within
  // GrpcOptions::max_message_bytes, once all before it is with the network, and is dropped when one
  // already waits for that, or when the stream is gone. It may be asked on this thread, at once.
  using LatestFrame = absl::AnyInvocable<Frame()>;
  virtual void SendLatest(LatestFrame make) = 0;

  // Calls `callback` once when IsEnding() becomes true, on any thread; at once if it is. It must
  // not block. One for each stream.
  using EndingCallback = absl::AnyInvocable<void()>;
  virtual void OnEnding(EndingCallback callback) = 0;
};

// Called on a network thread for every new stream; must not block, must not return null.
//
// Frames of the stream go to the handler. The handler is destroyed when no more can come: the
// client has closed its side, or the stream is gone, or the server shuts down. In the first and the
// last case answers can still be sent, and the stream ends (OK on half-close, UNAVAILABLE on
// shutdown) when the last reference to the sink is dropped: keep one for every request that is
// being worked on and none anywhere else.
//
// While the client leaves much unread no frame of its stream is read, see RawStreamMethod.
//
// FrameSink::Send gives INVALID_ARGUMENT for a frame over GrpcOptions::max_message_bytes, and
// RESOURCE_EXHAUSTED when the client has left too much unread; that breaks the stream.
using StreamFactory = std::function<std::unique_ptr<StreamHandler>(
    std::shared_ptr<ServerStreamSink>, const CallContextPtr&)>;

// The whole name of a method, "/expertmesh.v1.Router/Forward"; Service as generated, v1::Router.
template <typename Service>
std::string MethodOf(const std::string& method) {
  return std::string("/") + Service::service_full_name() + "/" + method;
}

// Names are whole, see MethodOf().
struct RawUnaryMethod {
  std::string name;
  UnaryHandler handler;
  MethodCounter* counter = nullptr;  // Filled by the server.
};

// On the wire a method that streams in one direction only is no different.
struct RawStreamMethod {
  std::string name;
  StreamFactory factory;
  // Ends at GrpcOptions::max_connection_age, for a client that will open another.
  bool ages = true;
  // Every frame that comes is answered by exactly one: then what is being worked on counts with
  // what is queued, and so little is read from a client which does not read that it is never
  // broken for that, but for GrpcServerSpec::max_unread_time.
  bool answers_each = false;
  MethodCounter* counter = nullptr;  // Filled by the server.
};

// A unary method that may block; see OrdinaryMethod().
struct BlockingMethod {
  std::string name;
  std::function<absl::StatusOr<Frame>(const Frame& request)> call;
  // May take seconds and more, and so has no part in the threads of those that answer at once.
  bool lasting = false;
};

// The largest request of a method other than a raw one: such requests are small, and some are read
// by a network thread.
inline constexpr size_t kMostRequestBytes = size_t{1} << 20;

template <typename Request>
absl::StatusOr<Request> ParseRequest(const Frame& frame) {
  if (frame.size() > kMostRequestBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the ", Request::descriptor()->name(), " has ",
                                                   frame.size(), " bytes; send at most ",
                                                   kMostRequestBytes));
  }
  Request request;
  if (!request.ParseFromString(frame.Flatten())) {
    return absl::InvalidArgumentError("the bytes are no " + Request::descriptor()->full_name());
  }
  return request;
}

template <typename Request, typename Response>
BlockingMethod OrdinaryMethod(std::string name,
                              std::function<absl::StatusOr<Response>(const Request&)> method) {
  return {std::move(name),
          [method = std::move(method)](const Frame& frame) -> absl::StatusOr<Frame> {
            const absl::StatusOr<Request> request = ParseRequest<Request>(frame);
            if (!request.ok()) {
              return request.status();
            }
            const absl::StatusOr<Response> response = method(*request);
            if (!response.ok()) {
              return response.status();
            }
            return Frame(response->SerializeAsString());
          }};
}

// An OrdinaryMethod() that may take long.
template <typename Request, typename Response>
BlockingMethod LastingMethod(std::string name,
                             std::function<absl::StatusOr<Response>(const Request&)> method) {
  BlockingMethod made = OrdinaryMethod<Request, Response>(std::move(name), std::move(method));
  made.lasting = true;
  return made;
}

struct GrpcServerSpec {
  // host:port or unix:/path. Port 0: a free one, see port().
  std::string address;
  GrpcOptions options;
  std::vector<RawUnaryMethod> unary;
  std::vector<RawStreamMethod> streams;
  std::vector<BlockingMethod> ordinary;
  std::vector<WatchMethod> watches;
  // Bytes of answers queued on one stream before it is broken; from half of it on nothing is read.
  // Where RawStreamMethod::answers_each, the most that it may run ahead of its client.
  size_t send_queue_bytes = size_t{64} << 20;
  // Requests not yet answered and answers not yet sent, of all calls. The more of it is used, the
  // less each stream may run ahead; a unary call that finds no room is refused.
  size_t max_buffered_bytes = size_t{512} << 20;
  // A stream whose client has read nothing for so long, about, is broken when more than a little
  // is queued.
  absl::Duration max_unread_time = absl::Minutes(5);
  // Whose threads and queues are used, and outlive the server; null: its own.
  GrpcRuntime* runtime = nullptr;
  // Network threads of its own runtime; 0: DefaultPollers().
  int pollers = 0;
  // Watchers of one method at once; see watch_hub.h for how peers share them.
  size_t most_watchers = 10'000;
  // Measures the heartbeats of watches.
  Clock* clock = Clock::Real();
  // Hears of every call, and outlives the server; null: calls are not counted.
  CallCounter* counter = nullptr;
  // Health of "" and "ready" from the start; that of "live" is SERVING as long as the server is up.
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
  // The same for the process as a whole, which has two names: "" and "ready".
  virtual void SetReady(bool ready) = 0;

  // Has its own threads give back, soon, what they keep free: see TrimThread().
  virtual void TrimThreads() = 0;

  // Stops accepting, tells clients to go elsewhere, lets calls finish for `grace` and then cancels
  // them: takes little longer than `grace`, whatever clients and handlers do, as long as blocking
  // methods return. No handler runs afterwards, and no function of a watch. A connection ends about
  // a second after the last call on it (of unix sockets: on all of them) that a handler got, and
  // with it a call that gRPC did not hand out any more.
  // Health is NOT_SERVING from the start of it.
  virtual void Shutdown(absl::Duration grace) = 0;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_GRPC_SERVER_H_
