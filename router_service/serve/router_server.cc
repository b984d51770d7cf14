#include "router_service/serve/router_server.h"

#include <utility>

#include "common/net/grpc_server.h"
#include "common/wire/status.h"
#include "expertmesh/v1/control.grpc.pb.h"
#include "expertmesh/v1/router.grpc.pb.h"
#include "router_service/serve/authority_service.h"
#include "router_service/serve/balance_watch.h"
#include "router_service/serve/control_service.h"

namespace expertmesh::serve {
namespace {

constexpr char kBalanceHealth[] = "expertmesh.balance";

Frame Encode(const ServedRouter& router, const v1::ForwardResponse& response,
             const std::optional<TensorFrame>& output) {
  return EncodeTensorMessage(response, output ? &*output : nullptr, router.buffers);
}

// One ForwardStream of one caller. Each request in flight holds the sink; the stream ends with the
// last.
class ForwardStreamHandler final : public StreamHandler {
 public:
  ForwardStreamHandler(const ServedRouter* router, std::shared_ptr<FrameSink> answers,
                       CallContextPtr context)
      : way_back_(std::make_shared<const WayBack>(router, std::move(answers))),
        context_(std::move(context)) {}

  void OnFrame(Frame frame) override {
    way_back_->router->forward->Forward(
        frame, context_,
        [way_back = way_back_](const v1::ForwardResponse& response,
                               const std::optional<TensorFrame>& output) {
          // A caller that is gone wants no answer, and no other is there to tell.
          way_back->answers->Send(Encode(*way_back->router, response, output)).IgnoreError();
        });
  }

 private:
  // One pointer to both, which a Respond has room for.
  struct WayBack {
    WayBack(const ServedRouter* of, std::shared_ptr<FrameSink> sink)
        : router(of), answers(std::move(sink)) {}
    const ServedRouter* const router;
    const std::shared_ptr<FrameSink> answers;
  };

  const std::shared_ptr<const WayBack> way_back_;
  const CallContextPtr context_;  // All requests of the stream share it.
};

void ServeUnary(const ServedRouter* router, const Frame& request, const CallContextPtr& context,
                net::UnaryResponder respond) {
  router->forward->Forward(
      request, context,
      [router, respond = std::move(respond)](const v1::ForwardResponse& response,
                                             const std::optional<TensorFrame>& output) {
        absl::Status status = FromWire(response.status());
        if (status.ok()) {
          respond(Encode(*router, response, output));
        } else {
          respond(std::move(status));
        }
      });
}

class RouterServerImpl final : public RouterServer {
 public:
  explicit RouterServerImpl(const ServedRouter& router)
      : router_(router), balance_(router.controller, router.clock) {}

  ~RouterServerImpl() override { Shutdown(absl::ZeroDuration()); }

  absl::Status Listen(const RouterServerOptions& options) {
    net::GrpcServerSpec spec;
    spec.address = options.address;
    spec.options = options.grpc;
    spec.runtime = options.runtime;
    spec.counter = options.counter;
    spec.unary = {{net::MethodOf<v1::Router>("Forward"),
                   [router = &router_](Frame request, const CallContextPtr& context,
                                       net::UnaryResponder respond) {
                     ServeUnary(router, request, context, std::move(respond));
                   }}};
    spec.streams = {{net::MethodOf<v1::Router>("ForwardStream"),
                     [router = &router_](std::shared_ptr<net::ServerStreamSink> answers,
                                         const CallContextPtr& context) {
                       return std::make_unique<ForwardStreamHandler>(router, std::move(answers),
                                                                     context);
                     }}};
    spec.streams.back().answers_each = true;
    spec.max_buffered_bytes = options.max_buffered_bytes;
    spec.ordinary = {net::OrdinaryMethod<v1::DescribeModelRequest, v1::DescribeModelResponse>(
        net::MethodOf<v1::Router>("DescribeModel"),
        [router = &router_](const v1::DescribeModelRequest&) { return router->describe_model(); })};
    AddControlMethods(&router_, &balance_, &spec);
    AddAuthorityMethods(router_.controller, &spec);
    spec.serving = router_.fleet->ready();
    absl::StatusOr<std::unique_ptr<net::GrpcServer>> server =
        net::GrpcServer::Start(std::move(spec));
    if (!server.ok()) {
      return server.status();
    }
    server_ = *std::move(server);
    server_->SetServing(v1::Control::service_full_name(), true);  // As long as the process is up.
    UpdateHealth();
    subscription_ = router_.fleet->Subscribe([this] { UpdateHealth(); });
    balance_subscription_ = balance_.Subscribe([this] { UpdateBalanceHealth(); });
    return absl::OkStatus();
  }

  int port() const override { return server_->port(); }

  void TrimThreads() override { server_->TrimThreads(); }

  void Shutdown(absl::Duration grace) override {
    if (server_ == nullptr || std::exchange(stopped_, true)) {
      return;
    }
    router_.fleet->Unsubscribe(subscription_);
    balance_subscription_.reset();
    server_->Shutdown(grace);
  }

 private:
  void UpdateHealth() {
    const bool ready = router_.fleet->ready();
    server_->SetReady(ready);
    server_->SetServing(v1::Router::service_full_name(), ready);
  }

  void UpdateBalanceHealth() {
    server_->SetServing(kBalanceHealth, router_.controller->Summary().alive());
  }

  const ServedRouter router_;
  BalanceWatch balance_;
  std::unique_ptr<net::GrpcServer> server_;
  uint64_t subscription_ = 0;
  std::shared_ptr<void> balance_subscription_;
  bool stopped_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RouterServer>> RouterServer::Start(
    const ServedRouter& router, const RouterServerOptions& options) {
  auto server = std::make_unique<RouterServerImpl>(router);
  if (absl::Status status = server->Listen(options); !status.ok()) {
    return status;
  }
  return server;
}

}  // namespace expertmesh::serve
