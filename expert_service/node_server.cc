#include "expert_service/node_server.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/status_macros.h"
#include "common/net/grpc_server.h"
#include "common/net/watch_method.h"
#include "expertmesh/internal/v1/expert.grpc.pb.h"

namespace expertmesh::node {
namespace {

constexpr uint32_t kDefaultHeartbeatMs = 1000;
constexpr uint32_t kMinHeartbeatMs = 10;
constexpr uint32_t kMaxHeartbeatMs = 60'000;

absl::StatusOr<absl::Duration> HeartbeatOf(const Frame& frame) {
  ASSIGN_OR_RETURN(const internal::v1::WatchStatusRequest request,
                   net::ParseRequest<internal::v1::WatchStatusRequest>(frame));
  const uint32_t asked = request.heartbeat_ms() == 0 ? kDefaultHeartbeatMs : request.heartbeat_ms();
  return absl::Milliseconds(std::clamp(asked, kMinHeartbeatMs, kMaxHeartbeatMs));
}

net::WatchedState ReadStatus(const NodeEndpoint& endpoint) {
  internal::v1::WatchStatusResponse status = endpoint.Status();
  net::WatchedState state;
  state.version = status.version();
  state.whole = Frame(status.SerializeAsString());
  status.clear_description();
  state.brief = Frame(status.SerializeAsString());
  return state;
}

net::WatchMethod WatchStatus(NodeEndpoint* endpoint) {
  return {.name = net::MethodOf<internal::v1::Expert>("WatchStatus"),
          .heartbeat = &HeartbeatOf,
          .read = [endpoint] { return ReadStatus(*endpoint); },
          .subscribe = [endpoint](std::function<void()> on_change) -> std::shared_ptr<void> {
            return endpoint->Subscribe(std::move(on_change));
          }};
}

// Lets threads wait for the next change of an endpoint, or for the end.
class ChangeSignal {
 public:
  ChangeSignal(NodeEndpoint* endpoint, Clock* clock) : clock_(clock) {
    subscription_ = endpoint->Subscribe([this] {
      absl::MutexLock lock(&mutex_);
      ++changes_;
      changed_.SignalAll();
    });
  }

  // Ends all waits, now and later. No more use of the endpoint.
  void Stop() {
    {
      absl::MutexLock lock(&mutex_);
      stopped_ = true;
      changed_.SignalAll();
    }
    subscription_.reset();
  }

  uint64_t changes() const {
    absl::MutexLock lock(&mutex_);
    return changes_;
  }

  // Returns when there are more changes than `seen`, or at `deadline`; false when stopped.
  bool Wait(uint64_t seen, absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    while (!stopped_ && changes_ == seen && !clock_->WaitUntil(&mutex_, &changed_, deadline)) {
    }
    return !stopped_;
  }

 private:
  Clock* const clock_;
  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  uint64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<StatusSubscription> subscription_;  // Last: calls back into the above.
};

class CqNodeServer final : public NodeServer {
 public:
  CqNodeServer(NodeEndpoint* endpoint, const NodeServerOptions& options)
      : endpoint_(endpoint), options_(options), signal_(endpoint, options.clock) {}

  ~CqNodeServer() override { Shutdown(absl::ZeroDuration()); }

  absl::Status Listen() {
    net::GrpcServerSpec spec;
    spec.address = options_.address;
    spec.options = options_.grpc;
    spec.options.max_message_bytes = options_.max_frame_bytes;
    spec.streams = {{net::MethodOf<internal::v1::Expert>("Compute"),
                     [this](std::shared_ptr<net::ServerStreamSink> sink, const CallContextPtr&) {
                       return endpoint_->OpenCompute(std::move(sink));
                     }}};
    spec.ordinary = {
        net::OrdinaryMethod<internal::v1::DescribeRequest, internal::v1::DescribeResponse>(
            net::MethodOf<internal::v1::Expert>("Describe"),
            [this](const internal::v1::DescribeRequest&) {
              internal::v1::DescribeResponse response;
              *response.mutable_description() = endpoint_->Describe();
              return response;
            }),
        net::LastingMethod<internal::v1::LoadExpertsRequest, internal::v1::LoadExpertsResponse>(
            net::MethodOf<internal::v1::Expert>("LoadExperts"),
            [this](const internal::v1::LoadExpertsRequest& request) {
              return endpoint_->LoadExperts(request);
            }),
        net::LastingMethod<internal::v1::UnloadExpertsRequest, internal::v1::UnloadExpertsResponse>(
            net::MethodOf<internal::v1::Expert>("UnloadExperts"),
            [this](const internal::v1::UnloadExpertsRequest& request) {
              return endpoint_->UnloadExperts(request);
            })};
    spec.watches = {WatchStatus(endpoint_)};
    spec.clock = options_.clock;
    spec.counter = options_.counter;
    spec.send_queue_bytes = options_.send_queue_bytes;
    spec.pollers = options_.pollers;
    spec.serving = false;
    ASSIGN_OR_RETURN(server_, net::GrpcServer::Start(std::move(spec)));
    health_ = std::thread([this] { FollowHealth(); });
    return absl::OkStatus();
  }

  int port() const override { return server_->port(); }

  void Shutdown(absl::Duration grace) override {
    std::call_once(shut_down_, [this, grace] {  // A second caller waits for the first.
      signal_.Stop();
      if (server_ != nullptr) {
        server_->Shutdown(grace);
        health_.join();
      }
    });
  }

 private:
  void FollowHealth() {
    uint64_t seen = 0;
    do {
      seen = signal_.changes();
      const bool ready = endpoint_->Status().state() == v1::NODE_STATE_READY;
      server_->SetReady(ready);
      server_->SetServing(internal::v1::Expert::service_full_name(), ready);
    } while (signal_.Wait(seen, absl::InfiniteFuture()));
  }

  NodeEndpoint* const endpoint_;
  const NodeServerOptions options_;
  ChangeSignal signal_;
  std::unique_ptr<net::GrpcServer> server_;
  std::thread health_;
  std::once_flag shut_down_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<NodeServer>> NodeServer::Start(NodeEndpoint* endpoint,
                                                              const NodeServerOptions& options) {
  auto server = std::make_unique<CqNodeServer>(endpoint, options);
  RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace expertmesh::node
