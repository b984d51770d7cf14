#include "common/net/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/net/server_calls.h"
#include "common/transport/address.h"

namespace expertmesh {
namespace {

// Calls of each method that wait on each queue: with fewer, a burst of new calls is slowed down.
constexpr int kWaitingUnaryCalls = 32;
constexpr int kWaitingStreamCalls = 4;

// gRPC says only that it could not listen; binding once more tells why.
std::string WhyNotBound(const std::string& address) {
  const absl::StatusOr<HostPort> parts = SplitHostPort(address);
  if (!parts.ok()) {
    return std::string(parts.status().message());
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(parts->host.c_str(), parts->port.c_str(), &hints, &found);
  if (error != 0) {
    return gai_strerror(error);
  }
  int reason = 0;
  for (const addrinfo* one = found; one != nullptr && reason == 0; one = one->ai_next) {
    const int socket_fd = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
    const int reuse = 1;
    setsockopt(socket_fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
    // Two sockets of the same port can be bound without listening, hence both.
    if (socket_fd < 0 || bind(socket_fd, one->ai_addr, one->ai_addrlen) != 0 ||
        listen(socket_fd, 1) != 0) {
      reason = errno;
    }
    if (socket_fd >= 0) {
      close(socket_fd);
    }
  }
  freeaddrinfo(found);
  return reason != 0 ? std::strerror(reason) : "no reason given";
}

class CqServer final : public GrpcServer {
 public:
  explicit CqServer(GrpcServerSpec spec) : spec_(std::move(spec)) {}
  ~CqServer() override { Shutdown(absl::ZeroDuration()); }

  absl::Status Listen() {
    // gRPC itself would take "nonsense" for a host and add a port.
    if (!absl::StartsWith(spec_.address, "unix:")) {
      RETURN_IF_ERROR(SplitHostPort(spec_.address).status());
    }
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    ApplyOptions(spec_.options, &builder);
    int bound = 0;
    builder.AddListeningPort(spec_.address, grpc::InsecureServerCredentials(), &bound);
    for (grpc::Service* service : spec_.services) {
      builder.RegisterService(service);
    }
    const int pollers = spec_.pollers > 0 ? spec_.pollers : DefaultPollers();
    for (int i = 0; i < pollers; ++i) {
      queues_.push_back(builder.AddCompletionQueue());
    }
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) {
      for (const auto& queue : queues_) {
        QueuePoller drain(queue.get());
      }
      return absl::UnavailableError(absl::StrCat("cannot listen on ", spec_.address, ": ",
                                                 WhyNotBound(spec_.address),
                                                 "; stop what uses it or choose another address"));
    }
    port_ = absl::StartsWith(spec_.address, "unix:") ? 0 : bound;
    SetServing("", spec_.serving);
    for (const auto& queue : queues_) {
      const ServerQueue host{&calls_, queue.get(), spec_.options.max_message_bytes,
                             spec_.send_queue_bytes};
      for (const RawUnaryMethod& method : spec_.unary) {
        for (int i = 0; i < kWaitingUnaryCalls; ++i) {
          AwaitUnaryCall(host, &method);
        }
      }
      for (const RawStreamMethod& method : spec_.streams) {
        for (int i = 0; i < kWaitingStreamCalls; ++i) {
          AwaitStreamCall(host, &method);
        }
      }
      pollers_.push_back(std::make_unique<QueuePoller>(queue.get()));
    }
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void SetServing(const std::string& service, bool serving) override {
    server_->GetHealthCheckService()->SetServingStatus(service, serving);
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
  void ShutdownOnce(absl::Duration grace) {
    server_->GetHealthCheckService()->Shutdown();
    const absl::Status why =
        absl::UnavailableError("the server is shutting down; call another one");
    const std::vector<std::shared_ptr<LiveCall>> calls = calls_.Stop();
    // gRPC's own shutdown waits for every call to be finished, so calls are ended meanwhile.
    const auto deadline = std::chrono::system_clock::now() + absl::ToChronoNanoseconds(grace);
    std::thread closing([this, deadline] { server_->Shutdown(deadline); });
    for (const std::shared_ptr<LiveCall>& call : calls) {
      call->Drain(why);
    }
    if (!calls_.AwaitNone(grace)) {
      for (const std::shared_ptr<LiveCall>& call : calls) {
        call->Abort(why);
      }
      calls_.AwaitNone(absl::InfiniteDuration());
    }
    closing.join();
    pollers_.clear();
  }

  const GrpcServerSpec spec_;
  int port_ = 0;
  LiveCalls calls_;
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::unique_ptr<QueuePoller>> pollers_;
  std::once_flag shut_down_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(GrpcServerSpec spec) {
  auto server = std::make_unique<CqServer>(std::move(spec));
  RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace expertmesh
