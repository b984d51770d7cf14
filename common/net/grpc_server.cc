#include "common/net/grpc_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/net/blocking_calls.h"
#include "common/net/health_service.h"
#include "common/net/listener.h"
#include "common/net/reflection_service.h"
#include "common/net/server_calls.h"
#include "common/net/watch_hub.h"
#include "common/wire/error_reason.h"

namespace expertmesh::net {
namespace {

// Calls of each method that wait on each queue: with fewer, a burst of new calls is slowed down.
constexpr int kWaitingUnaryCalls = 32;
constexpr int kWaitingStreamCalls = 4;
// Methods that block: threads, and calls that wait for one.
constexpr int kBlockingThreads = 4;
constexpr size_t kMostWaitingCalls = 1024;
constexpr int kLastingThreads = 4;
constexpr size_t kMostWaitingLastingCalls = 64;
// During shutdown: between two looks at the connections, and how long one may be without a call.
constexpr absl::Duration kBetweenLooks = absl::Milliseconds(250);
constexpr absl::Duration kLongestIdle = absl::Seconds(1);

// "expertmesh.v1.Router" of "/expertmesh.v1.Router/Forward".
std::string ServiceOf(const std::string& method) { return method.substr(1, method.rfind('/') - 1); }

class CqServer final : public GrpcServer {
 public:
  explicit CqServer(GrpcServerSpec spec)
      : spec_(std::move(spec)),
        own_runtime_(spec_.runtime == nullptr ? std::make_unique<GrpcRuntime>(spec_.pollers)
                                              : nullptr),
        runtime_(spec_.runtime == nullptr ? *own_runtime_ : *spec_.runtime),
        watches_(WatchHubs()),
        unary_(UnaryMethods()),
        streams_(StreamMethods()),
        service_(unary_, streams_) {}
  ~CqServer() override { Shutdown(absl::ZeroDuration()); }

  absl::Status Listen() {
    ASSIGN_OR_RETURN(listener_,
                     Listener::Bind({.address = spec_.address,
                                     .max_connections = spec_.options.max_connections,
                                     .user_timeout = spec_.options.keepalive_timeout,
                                     .stall = [this] { return runtime_.CurrentStall(); }}));
    grpc::ServerBuilder& builder = runtime_.server_builder();
    ApplyOptions(spec_.options, &builder);
    using External = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
    acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
        External::FROM_FD, grpc::InsecureServerCredentials());
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) {
      return absl::InternalError("gRPC did not start a server; its log says why");
    }
    SetServing("live", true);
    SetReady(spec_.serving);
    for (const auto& queue : runtime_.queues()) {
      const ServerQueue host{.calls = &calls_,
                             .deadlines = &deadlines_,
                             .service = &service_,
                             .queue = queue.get(),
                             .resets = &resets_,
                             .max_message_bytes = spec_.options.max_message_bytes,
                             .max_metadata_bytes = spec_.options.max_metadata_bytes,
                             .send_queue_bytes = spec_.send_queue_bytes,
                             .budget = budget_,
                             .max_unread_time = spec_.max_unread_time,
                             .max_stream_age = spec_.options.max_connection_age};
      for (const RawUnaryMethod& method : unary_) {
        for (int i = 0; i < kWaitingUnaryCalls; ++i) {
          AwaitUnaryCall(host, &method);
        }
      }
      for (const RawStreamMethod& method : streams_) {
        for (int i = 0; i < kWaitingStreamCalls; ++i) {
          AwaitStreamCall(host, &method);
        }
      }
    }
    listener_->Start([this](int listening, int connection) {
      grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters accepted;
      accepted.listener_fd = listening;
      accepted.fd = connection;
      acceptor_->HandleNewConnection(&accepted);
    });
    return absl::OkStatus();
  }

  int port() const override { return listener_->port(); }

  void SetServing(const std::string& service, bool serving) override {
    health_.SetServing(service, serving);
  }

  void SetReady(bool ready) override {
    SetServing("", ready);
    SetServing("ready", ready);
  }

  void TrimThreads() override {
    deadlines_.Schedule(Clock::Real()->Now(), TrimThread);
    if (own_runtime_ != nullptr) {
      own_runtime_->Flush(TrimThread);
    }
  }

  void Shutdown(absl::Duration grace) override {
    if (server_ != nullptr) {
      // A second caller waits for the first.
      std::call_once(shut_down_, [this, grace] {
        ShutdownOnce(std::clamp(grace, absl::ZeroDuration(), absl::Hours(24)));
      });
    }
  }

 private:
  std::vector<RawUnaryMethod> UnaryMethods() {
    std::vector<RawUnaryMethod> methods = spec_.unary;
    for (const BlockingMethod& method : spec_.ordinary) {
      BlockingCalls* const calls = method.lasting ? &lasting_ : &blocking_;
      methods.push_back(
          {method.name,
           [calls, &method](Frame request, const CallContextPtr& context, UnaryResponder respond) {
             calls->Run(context->peer(), [&method, request = std::move(request), context,
                                          respond = std::move(respond)](const absl::Status& go) {
               if (go.ok() && context->cancelled()) {
                 respond(absl::CancelledError("the caller has gone"));
               } else {
                 respond(go.ok() ? method.call(request) : go);
               }
             });
           }});
    }
    for (RawUnaryMethod& method : health_.UnaryMethods()) {
      methods.push_back(std::move(method));
    }
    CountCalls(/*streams=*/false, &methods);
    return methods;
  }

  std::vector<std::unique_ptr<WatchHub>> WatchHubs() const {
    std::vector<std::unique_ptr<WatchHub>> hubs;
    for (const WatchMethod& method : spec_.watches) {
      hubs.push_back(std::make_unique<WatchHub>(&method, spec_.most_watchers,
                                                spec_.options.max_message_bytes, spec_.clock));
    }
    return hubs;
  }

  std::vector<RawStreamMethod> StreamMethods() {
    std::vector<RawStreamMethod> methods = spec_.streams;
    for (const std::unique_ptr<WatchHub>& hub : watches_) {
      methods.push_back(hub->Method());
    }
    // A client that watches health does so for a connection, and leaves with it.
    methods.push_back(health_.WatchMethod());
    methods.back().ages = false;
    std::set<std::string> services = {"grpc.reflection.v1.ServerReflection",
                                      "grpc.reflection.v1alpha.ServerReflection"};
    for (const RawUnaryMethod& method : unary_) {
      services.insert(ServiceOf(method.name));
    }
    for (const RawStreamMethod& method : methods) {
      services.insert(ServiceOf(method.name));
    }
    for (RawStreamMethod& method : ReflectionMethods({services.begin(), services.end()})) {
      methods.push_back(std::move(method));
    }
    CountCalls(/*streams=*/true, &methods);
    return methods;
  }

  template <typename Method>
  void CountCalls(bool streams, std::vector<Method>* methods) const {
    for (Method& method : *methods) {
      method.counter =
          spec_.counter == nullptr ? nullptr : spec_.counter->Method(method.name, streams);
    }
  }

  void ShutdownOnce(absl::Duration grace) {
    health_.Shutdown();
    listener_->Stop();  // gRPC would not close what came during its own shutdown.
    const absl::Status why = ShuttingDown();
    const std::vector<std::shared_ptr<LiveCall>> calls = calls_.Stop();
    // First: gRPC's shutdown would cancel them without a reason when there is no grace.
    for (const std::shared_ptr<LiveCall>& call : calls) {
      call->Drain(why);
    }
    for (const std::unique_ptr<WatchHub>& hub : watches_) {
      hub->Stop();
    }
    // It waits for every call to be finished, so they are ended meanwhile.
    const auto deadline = std::chrono::system_clock::now() + absl::ToChronoNanoseconds(grace);
    absl::Notification closed;
    std::thread closing([this, deadline, &closed] {
      server_->Shutdown(deadline);
      closed.Notify();
    });
    const absl::Time end = Clock::Real()->Now() + grace;
    for (absl::Duration left = grace; !calls_.AwaitNone(std::min(left, kBetweenLooks));
         left = end - Clock::Real()->Now()) {
      if (left <= kBetweenLooks) {
        for (const std::shared_ptr<LiveCall>& call : calls) {
          call->Abort(why);
        }
        calls_.AwaitNone(absl::InfiniteDuration());
        break;
      }
      EndIdleConnections();
    }
    while (!closed.WaitForNotificationWithTimeout(kBetweenLooks)) {
      EndIdleConnections();
    }
    closing.join();
    blocking_.Stop(why);
    lasting_.Stop(why);
    // gRPC itself has requests on the queues, which know the server.
    runtime_.Flush();
  }

  // gRPC 1.51 forgets a call that comes after it has refused all that wait for calls, or has told
  // the client to go, and before it or the client knows: the call has no answer, and keeps its
  // connection open to the end of the grace.
  void EndIdleConnections() {
    listener_->EndIdle(calls_.Peers(), Clock::Real()->Now(), kLongestIdle);
  }

  const GrpcServerSpec spec_;
  const std::unique_ptr<GrpcRuntime> own_runtime_;
  GrpcRuntime& runtime_;
  const std::shared_ptr<BufferBudget> budget_ =
      std::make_shared<BufferBudget>(spec_.max_buffered_bytes);
  HealthService health_;
  BlockingCalls blocking_{kBlockingThreads, kMostWaitingCalls, Clock::Real()};
  BlockingCalls lasting_{kLastingThreads, kMostWaitingLastingCalls, Clock::Real()};
  TimerQueue deadlines_{Clock::Real()};
  ResetGuard resets_{Clock::Real(),
                     [this](const std::string& peer) { return listener_->End(peer); }};
  LiveCalls calls_;
  // All that is served, constant.
  const std::vector<std::unique_ptr<WatchHub>> watches_;
  const std::vector<RawUnaryMethod> unary_;
  const std::vector<RawStreamMethod> streams_;
  RawService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<Listener> listener_;  // After acceptor_, which it uses.
  std::once_flag shut_down_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(GrpcServerSpec spec) {
  auto server = std::make_unique<CqServer>(std::move(spec));
  RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace expertmesh::net
