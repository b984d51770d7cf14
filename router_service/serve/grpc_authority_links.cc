#include "router_service/serve/grpc_authority_links.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/address.h"
#include "common/net/grpc_client.h"
#include "common/transport/callback_serializer.h"

namespace expertmesh::serve {
namespace {

using balance_control::AuthorityLink;
using balance_control::AuthorityObserver;

constexpr char kFollow[] = "/expertmesh.internal.v1.Authority/Follow";
constexpr char kReport[] = "/expertmesh.internal.v1.Authority/ReportLoad";
constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(2);
// So many heartbeats of silence end an attempt, and no less than so much time.
constexpr int kSilentHeartbeats = 4;
constexpr absl::Duration kLeastSilence = absl::Seconds(2);
constexpr absl::Duration kReportTimeout = absl::Seconds(5);

// Everything that happens goes through `serializer_`, and members are used there only. What comes
// of an attempt that is over is ignored.
class Link : public std::enable_shared_from_this<Link> {
 public:
  Link(net::GrpcRuntime* runtime, Clock* clock, TimerQueue* timers, std::string address,
       const internal::v1::FollowRequest& request, AuthorityObserver* observer)
      : runtime_(runtime),
        clock_(clock),
        timers_(timers),
        address_(std::move(address)),
        request_(request),
        silence_(std::max(kLeastSilence,
                          kSilentHeartbeats * absl::Milliseconds(request.heartbeat_ms()))),
        observer_(observer) {}

  void Start() {
    serializer_.Run([this] { After(absl::ZeroDuration(), [this] { Attempt(); }); });
  }

  void Close() {
    serializer_.Close();
    timers_->Cancel(timer_);
    End();
  }

  void Report(const internal::v1::ReportLoadRequest& counts) {
    if (reporting_.exchange(true)) {
      return;
    }
    net::CallOptions call;
    call.deadline = Clock::Real()->Now() + kReportTimeout;
    net::GrpcClient(runtime_, address_, net::GrpcOptions())
        .UnaryCall(kReport, Frame(counts.SerializeAsString()), call,
                   [self = shared_from_this()](const absl::StatusOr<Frame>& answer) {
                     self->reporting_ = false;
                     if (!answer.ok()) {
                       self->serializer_.Run([self = self.get(), why = answer.status()] {
                         self->observer_->OnDisconnected(why);
                       });
                     }
                   });
  }

 private:
  template <typename Action>
  void Post(uint64_t attempt, Action action) {
    serializer_.Run([this, attempt, action = std::move(action)]() mutable {
      if (attempt == attempt_) {
        action();
      }
    });
  }

  template <typename Action>
  void After(absl::Duration delay, Action action) {
    timer_ = timers_->Schedule(clock_->Now() + delay,
                               [weak = weak_from_this(), attempt = attempt_, action] {
                                 if (const std::shared_ptr<Link> self = weak.lock()) {
                                   self->Post(attempt, action);
                                 }
                               });
  }

  void Attempt() {
    if (const absl::Status status = CheckAddress(address_); !status.ok()) {
      observer_->OnDisconnected(status);  // Trying again would not help.
      return;
    }
    ++attempt_;
    last_heard_ = clock_->Now();
    const std::shared_ptr<Link> self = shared_from_this();
    const uint64_t attempt = attempt_;
    net::StreamCallbacks callbacks;
    callbacks.on_frame = [self, attempt](Frame frame) {
      self->Post(attempt, [self = self.get(), frame = std::move(frame)] { self->OnFrame(frame); });
    };
    callbacks.on_closed = [self, attempt](const absl::Status& status) {
      const absl::Status why = status.ok() ? absl::UnavailableError("it ended Follow") : status;
      self->Post(attempt, [self = self.get(), why] { self->Fail(why); });
    };
    stream_ = net::GrpcClient(runtime_, address_, net::GrpcOptions())
                  .OpenStream(kFollow, {}, std::move(callbacks));
    // A refusal means that the stream has ended, which on_closed tells.
    stream_->Send(Frame(request_.SerializeAsString())).IgnoreError();
    stream_->CloseSend();
    After(silence_, [this] { CheckHeartbeat(); });
  }

  void OnFrame(const Frame& frame) {
    internal::v1::FollowResponse response;
    if (!response.ParseFromString(frame.Flatten()) || !response.has_decision()) {
      Fail(absl::InternalError("its answer is no FollowResponse"));
      return;
    }
    last_heard_ = clock_->Now();
    pause_ = kFirstPause;
    observer_->OnDecision(std::move(*response.mutable_decision()));
  }

  void CheckHeartbeat() {
    const absl::Duration silent = clock_->Now() - last_heard_;
    if (silent < silence_) {
      After(silence_ - silent, [this] { CheckHeartbeat(); });
    } else {
      Fail(
          absl::UnavailableError(absl::StrCat("nothing heard for ", absl::FormatDuration(silent))));
    }
  }

  void Fail(const absl::Status& why) {
    ++attempt_;  // Nothing more of this attempt.
    timers_->Cancel(timer_);
    End();
    After(pause_, [this] { Attempt(); });
    pause_ = std::min(pause_ * 2, kLongestPause);
    observer_->OnDisconnected(why);
  }

  void End() {
    if (stream_ != nullptr) {
      stream_->Cancel();
      stream_.reset();
    }
  }

  net::GrpcRuntime* const runtime_;
  Clock* const clock_;
  TimerQueue* const timers_;
  const std::string address_;
  const internal::v1::FollowRequest request_;
  const absl::Duration silence_;
  AuthorityObserver* const observer_;
  std::atomic<bool> reporting_{false};

  CallbackSerializer serializer_;
  // Used in the serializer only.
  uint64_t attempt_ = 0;
  absl::Time last_heard_;
  absl::Duration pause_ = kFirstPause;
  TimerQueue::Id timer_ = 0;
  std::shared_ptr<net::ClientStream> stream_;
};

class GrpcAuthorityLink final : public AuthorityLink {
 public:
  explicit GrpcAuthorityLink(std::shared_ptr<Link> link) : link_(std::move(link)) {}
  ~GrpcAuthorityLink() override { link_->Close(); }
  void Report(const internal::v1::ReportLoadRequest& counts) override { link_->Report(counts); }

 private:
  const std::shared_ptr<Link> link_;
};

}  // namespace

GrpcAuthorityLinks::GrpcAuthorityLinks(net::GrpcRuntime* runtime, Clock* clock)
    : runtime_(runtime), clock_(clock), timers_(clock) {}

std::unique_ptr<AuthorityLink> GrpcAuthorityLinks::Connect(
    const std::string& address, const internal::v1::FollowRequest& request,
    AuthorityObserver* observer) {
  auto link = std::make_shared<Link>(runtime_, clock_, &timers_, address, request, observer);
  link->Start();
  return std::make_unique<GrpcAuthorityLink>(std::move(link));
}

}  // namespace expertmesh::serve
