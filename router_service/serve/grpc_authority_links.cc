#include "router_service/serve/grpc_authority_links.h"

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/address.h"
#include "common/net/grpc_client.h"
#include "common/net/reconnecting_streams.h"

namespace expertmesh::serve {
namespace {

using balance_control::AuthorityLink;
using balance_control::AuthorityObserver;

constexpr char kFollow[] = "/expertmesh.internal.v1.Authority/Follow";
constexpr char kReport[] = "/expertmesh.internal.v1.Authority/ReportLoad";
constexpr absl::Duration kLongestPause = absl::Seconds(2);
// So many heartbeats of silence end an attempt, and no less than so much time.
constexpr int kSilentHeartbeats = 4;
constexpr absl::Duration kLeastSilence = absl::Seconds(2);
constexpr absl::Duration kReportTimeout = absl::Seconds(5);

net::ReconnectOptions OptionsFor(const internal::v1::FollowRequest& request) {
  net::ReconnectOptions options;
  options.backoff_max = kLongestPause;
  options.silence_timeout =
      std::max(kLeastSilence, kSilentHeartbeats * absl::Milliseconds(request.heartbeat_ms()));
  return options;
}

class GrpcAuthorityLink final : public AuthorityLink, public net::ReconnectingStreamsUser {
 public:
  GrpcAuthorityLink(net::GrpcRuntime* runtime, Clock* clock, TimerQueue* timers,
                    std::string address, const internal::v1::FollowRequest& request,
                    AuthorityObserver* observer)
      : runtime_(runtime),
        address_(std::move(address)),
        request_(request),
        observer_(observer),
        streams_(
            std::make_shared<net::ReconnectingStreams>(clock, timers, OptionsFor(request), this)) {
    streams_->Start();
  }
  ~GrpcAuthorityLink() override { streams_->Close(); }

  void Report(const internal::v1::ReportLoadRequest& counts) override {
    std::shared_ptr<net::GrpcClient> client;
    {
      absl::MutexLock lock(&mutex_);
      if (reporting_ || client_ == nullptr) {
        return;
      }
      reporting_ = true;
      client = client_;
    }
    net::CallOptions call;
    call.deadline = Clock::Real()->Now() + kReportTimeout;
    client->UnaryCall(kReport, Frame(counts.SerializeAsString()), call,
                      [this, streams = streams_](const absl::StatusOr<Frame>& answer) {
                        // Not when the link is closed, and so gone.
                        streams->Run([this, why = answer.status()] { OnReported(why); });
                      });
  }

 private:
  void OnReported(const absl::Status& status) {
    {
      absl::MutexLock lock(&mutex_);
      reporting_ = false;
    }
    if (!status.ok()) {
      observer_->OnDisconnected(status);
    }
  }

  bool OpenStreams() override {
    if (const absl::Status status = CheckAddress(address_); !status.ok()) {
      observer_->OnDisconnected(status);
      return false;
    }
    auto client = std::make_shared<net::GrpcClient>(runtime_, address_, net::GrpcOptions());
    const auto stream = streams_->Open(0, "Follow", [&](net::StreamCallbacks callbacks) {
      return client->OpenStream(kFollow, {}, std::move(callbacks));
    });
    // A refusal means that the stream has ended, which is heard anyway.
    stream->Send(Frame(request_.SerializeAsString())).IgnoreError();
    stream->CloseSend();
    absl::MutexLock lock(&mutex_);
    client_ = std::move(client);
    return true;
  }

  void OnFrame(size_t, Frame frame) override {
    internal::v1::FollowResponse response;
    if (!response.ParseFromString(frame.Flatten()) || !response.has_decision()) {
      streams_->Fail(absl::InternalError("its answer is no FollowResponse"));
      return;
    }
    streams_->ResetBackoff();
    observer_->OnDecision(std::move(*response.mutable_decision()));
  }

  void OnDisconnected(const absl::Status& why) override { observer_->OnDisconnected(why); }

  net::GrpcRuntime* const runtime_;
  const std::string address_;
  const internal::v1::FollowRequest request_;
  AuthorityObserver* const observer_;
  const std::shared_ptr<net::ReconnectingStreams> streams_;

  absl::Mutex mutex_;
  bool reporting_ ABSL_GUARDED_BY(mutex_) = false;
  // That of the newest attempt, for reports, too.
  std::shared_ptr<net::GrpcClient> client_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

GrpcAuthorityLinks::GrpcAuthorityLinks(net::GrpcRuntime* runtime, Clock* clock)
    : runtime_(runtime), clock_(clock), timers_(clock) {}

std::unique_ptr<AuthorityLink> GrpcAuthorityLinks::Connect(
    const std::string& address, const internal::v1::FollowRequest& request,
    AuthorityObserver* observer) {
  return std::make_unique<GrpcAuthorityLink>(runtime_, clock_, &timers_, address, request,
                                             observer);
}

}  // namespace expertmesh::serve
