#include "common/net/grpc_transport.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/address.h"
#include "common/net/grpc_client.h"
#include "common/transport/callback_serializer.h"
#include "common/transport/pending_calls.h"

namespace expertmesh::net {
namespace {

constexpr char kComputeMethod[] = "/expertmesh.internal.v1.Expert/Compute";
constexpr char kWatchMethod[] = "/expertmesh.internal.v1.Expert/WatchStatus";
constexpr char kLoadMethod[] = "/expertmesh.internal.v1.Expert/LoadExperts";
constexpr char kUnloadMethod[] = "/expertmesh.internal.v1.Expert/UnloadExperts";
// So often in a row may pauses of this process excuse a node's silence: a process that is paused
// again and again must still notice in the end that a node is gone.
constexpr int kMostExcuses = 5;

// One connection. Everything that happens to it goes through `serializer_`, and the members marked
// so are used there only. An event of an attempt that is over is ignored.
class Link : public std::enable_shared_from_this<Link> {
 public:
  Link(GrpcRuntime* runtime, Clock* clock, TimerQueue* timers, const GrpcTransportOptions& options,
       std::string address, NodeObserver* observer)
      : runtime_(runtime),
        clock_(clock),
        timers_(timers),
        options_(options),
        address_(std::move(address)),
        observer_(observer),
        backoff_(options.backoff_initial) {}

  void Start() {
    // By the timer thread, so that the observer is not called from within Connect.
    serializer_.Run([this] { After(absl::ZeroDuration(), [this] { Attempt(); }); });
  }

  void Close() {
    serializer_.Close();
    // Nothing runs in the serializer any more: its members are ours now.
    timers_->Cancel(timer_);
    EndStreams();
    calls_->Close(
        absl::UnavailableError(absl::StrCat("the connection to node ", address_, " was closed")));
  }

  // A unary call on the connection of the status, so that it waits for no frame.
  void Call(const char* method, const Frame& request, absl::Duration timeout,
            PendingCalls::Done done) {
    std::shared_ptr<GrpcClient> client;
    {
      absl::MutexLock lock(&mutex_);
      client = up_ == nullptr ? nullptr : control_client_;
    }
    const uint64_t id = calls_->Add(std::move(done));
    if (client == nullptr) {
      timers_->Schedule(clock_->Now(), [calls = calls_, id, address = address_] {
        calls->End(id, absl::UnavailableError(absl::StrCat("node ", address, " is not connected")));
      });
      return;
    }
    CallOptions options;
    options.deadline = Clock::Real()->Now() + timeout;
    const std::shared_ptr<ClientCall> call = client->UnaryCall(
        method, request, options,
        [calls = calls_, id, address = address_](absl::StatusOr<Frame> answer) {
          if (absl::IsCancelled(answer.status())) {  // Not by this side: then it has ended.
            answer = absl::UnavailableError(absl::StrCat("node ", address, " ended the call"));
          }
          calls->End(id, std::move(answer));
        });
    calls_->OnAbandon(id, [call] { call->Cancel(); });
  }

  absl::Status Send(Frame frame) {
    std::shared_ptr<ClientStream> stream;
    {
      absl::MutexLock lock(&mutex_);
      stream = up_;
    }
    if (stream == nullptr) {
      return absl::UnavailableError(absl::StrCat("node ", address_, " is not connected"));
    }
    return stream->Send(std::move(frame));
  }

  void PauseReading() {
    std::shared_ptr<ClientStream> stream;
    {
      absl::MutexLock lock(&mutex_);
      stream = up_;
    }
    if (stream != nullptr) {
      stream->PauseReading();
    }
  }

  size_t QueuedBytes() const {
    absl::MutexLock lock(&mutex_);
    return up_ == nullptr ? 0 : up_->QueuedBytes();
  }

 private:
  // Runs `action` in the serializer, unless another attempt has begun by then.
  template <typename Action>
  void Post(uint64_t attempt, Action action) {
    serializer_.Run([this, attempt, action = std::move(action)]() mutable {
      if (attempt == attempt_) {
        action();
      }
    });
  }

  // There is one timer, as there is always one thing to wait for. In the serializer.
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
    data_open_ = false;
    first_status_.reset();
    last_heard_ = clock_->Now();
    excuses_ = 0;
    GrpcOptions grpc = options_.grpc;
    grpc.max_message_bytes = options_.frame_limit_bytes;
    CallOptions call;
    call.send_queue_bytes = options_.window_bytes;
    data_ = GrpcClient(runtime_, address_, grpc)
                .OpenStream(kComputeMethod, call,
                            Callbacks("Compute", &Link::OnDataOpen, &Link::OnDataFrame));
    auto control_client = std::make_shared<GrpcClient>(runtime_, address_, grpc);
    control_ = control_client->OpenStream(kWatchMethod, call,
                                          Callbacks("WatchStatus", nullptr, &Link::OnStatusFrame));
    {
      absl::MutexLock lock(&mutex_);
      control_client_ = std::move(control_client);
    }
    internal::v1::WatchStatusRequest request;
    request.set_heartbeat_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.heartbeat)));
    // A refusal means that the stream has ended, which its on_closed tells.
    control_->Send(Frame(request.SerializeAsString())).IgnoreError();
    control_->CloseSend();
    After(options_.heartbeat_timeout, [this] { CheckHeartbeat(); });
  }

  StreamCallbacks Callbacks(const char* what, void (Link::*on_open)(),
                            void (Link::*on_frame)(Frame)) {
    StreamCallbacks callbacks;
    const std::shared_ptr<Link> self = shared_from_this();
    const uint64_t attempt = attempt_;
    if (on_open != nullptr) {
      callbacks.on_open = [self, attempt, on_open] {
        self->Post(attempt, [self = self.get(), on_open] { (self->*on_open)(); });
      };
    }
    callbacks.on_frame = [self, attempt, on_frame](Frame frame) {
      self->Post(attempt, [self = self.get(), on_frame, frame = std::move(frame)]() mutable {
        self->last_heard_ = self->clock_->Now();
        self->excuses_ = 0;
        (self->*on_frame)(std::move(frame));
      });
    };
    callbacks.on_closed = [self, attempt, what](const absl::Status& status) {
      // A node that dies during a call may leave OK or CANCELLED. This side never cancels these
      // calls.
      const absl::Status why = status.ok() || absl::IsCancelled(status)
                                   ? absl::UnavailableError(absl::StrCat("it ended ", what))
                                   : status;
      self->Post(attempt, [self = self.get(), why] { self->Fail(why); });
    };
    return callbacks;
  }

  void OnDataOpen() {
    data_open_ = true;
    GoUpIfComplete();
  }

  void OnDataFrame(Frame frame) {
    if (is_up_) {  // Before that, nothing has been asked for.
      observer_->OnFrame(std::move(frame));
    }
  }

  void OnStatusFrame(Frame frame) {
    internal::v1::WatchStatusResponse status;
    if (!status.ParseFromString(frame.Flatten())) {
      Fail(absl::InternalError("its status is not a valid WatchStatusResponse"));
    } else if (is_up_) {
      data_->ResumeReading();  // To see whether it still stands.
      observer_->OnStatus(status);
    } else if (first_status_.has_value() && !status.has_description()) {
      *status.mutable_description() = first_status_->description();
      first_status_ = std::move(status);
    } else if (!status.has_description()) {
      Fail(absl::InternalError("it did not describe itself"));
    } else {
      first_status_ = std::move(status);
      GoUpIfComplete();
    }
  }

  void GoUpIfComplete() {
    if (is_up_ || !data_open_ || !first_status_.has_value()) {
      return;
    }
    is_up_ = true;
    backoff_ = options_.backoff_initial;
    {
      absl::MutexLock lock(&mutex_);
      up_ = data_;
    }
    observer_->OnStatus(*first_status_);
  }

  void CheckHeartbeat() {
    const absl::Time now = clock_->Now();
    const absl::Duration silence = now - last_heard_;
    const absl::Time awake_since = options_.awake_since();
    const absl::Duration counted = now - std::max(last_heard_, awake_since);
    // The end of a pause uses up an excuse, its length none.
    const bool excused =
        silence < options_.heartbeat_timeout || awake_since >= now || ++excuses_ <= kMostExcuses;
    if (counted < options_.heartbeat_timeout && excused) {
      After(options_.heartbeat_timeout - counted, [this] { CheckHeartbeat(); });
      return;
    }
    Fail(absl::UnavailableError(absl::StrCat("nothing heard for ", absl::FormatDuration(silence))));
  }

  void Fail(const absl::Status& why) {
    ++attempt_;  // Nothing more of this attempt.
    timers_->Cancel(timer_);
    EndStreams();
    is_up_ = false;
    After(backoff_, [this] { Attempt(); });
    backoff_ = std::min(backoff_ * 2, options_.backoff_max);
    calls_->EndAll(absl::UnavailableError(
        absl::StrCat("node ", address_, " is gone before it answered: ", why.message())));
    observer_->OnDisconnected(
        absl::Status(why.code(), absl::StrCat("node ", address_, ": ", why.message())));
  }

  void EndStreams() {
    {
      absl::MutexLock lock(&mutex_);
      up_ = nullptr;
      control_client_ = nullptr;
    }
    for (std::shared_ptr<ClientStream>* stream : {&data_, &control_}) {
      if (*stream != nullptr) {
        (*stream)->Cancel();
        stream->reset();
      }
    }
  }

  GrpcRuntime* const runtime_;
  Clock* const clock_;
  TimerQueue* const timers_;
  const GrpcTransportOptions options_;
  const std::string address_;
  NodeObserver* const observer_;

  CallbackSerializer serializer_;
  // Used in the serializer only.
  uint64_t attempt_ = 0;
  bool is_up_ = false;
  bool data_open_ = false;
  std::optional<internal::v1::WatchStatusResponse> first_status_;
  absl::Time last_heard_;
  int excuses_ = 0;  // Since then.
  absl::Duration backoff_;
  TimerQueue::Id timer_ = 0;
  std::shared_ptr<ClientStream> data_;
  std::shared_ptr<ClientStream> control_;

  // Shared with calls that gRPC still works on.
  const std::shared_ptr<PendingCalls> calls_ = std::make_shared<PendingCalls>();

  mutable absl::Mutex mutex_;
  std::shared_ptr<ClientStream> up_ ABSL_GUARDED_BY(mutex_);  // data_ while up.
  // That of control_.
  std::shared_ptr<GrpcClient> control_client_ ABSL_GUARDED_BY(mutex_);
};

class GrpcConnection final : public NodeConnection {
 public:
  explicit GrpcConnection(std::shared_ptr<Link> link) : link_(std::move(link)) {}
  ~GrpcConnection() override { link_->Close(); }

  absl::Status Send(Frame frame) override { return link_->Send(std::move(frame)); }
  size_t QueuedBytes() const override { return link_->QueuedBytes(); }
  void PauseReading() override { link_->PauseReading(); }
  void LoadExperts(const internal::v1::LoadExpertsRequest& request, absl::Duration timeout,
                   LoadDone done) override {
    link_->Call(kLoadMethod, Frame(request.SerializeAsString()), timeout,
                ParsedFor<internal::v1::LoadExpertsResponse>(std::move(done)));
  }
  void UnloadExperts(const internal::v1::UnloadExpertsRequest& request, absl::Duration timeout,
                     UnloadDone done) override {
    link_->Call(kUnloadMethod, Frame(request.SerializeAsString()), timeout,
                ParsedFor<internal::v1::UnloadExpertsResponse>(std::move(done)));
  }

 private:
  const std::shared_ptr<Link> link_;
};

GrpcTransportOptions WithPulse(GrpcTransportOptions options, const GrpcRuntime& runtime,
                               const Clock* clock) {
  if (options.awake_since == nullptr) {
    options.awake_since = [&runtime, real = clock == Clock::Real()] {
      return real ? runtime.AwakeSince() : absl::InfinitePast();
    };
  }
  return options;
}

}  // namespace

GrpcTransport::GrpcTransport(GrpcRuntime* runtime, Clock* clock, GrpcTransportOptions options)
    : runtime_(runtime),
      clock_(clock),
      options_(WithPulse(std::move(options), *runtime, clock)),
      timers_(clock) {}

absl::Time GrpcTransport::AwakeSince() const { return options_.awake_since(); }

std::unique_ptr<NodeConnection> GrpcTransport::Connect(std::string address,
                                                       NodeObserver* observer) {
  auto link =
      std::make_shared<Link>(runtime_, clock_, &timers_, options_, std::move(address), observer);
  link->Start();
  return std::make_unique<GrpcConnection>(std::move(link));
}

}  // namespace expertmesh::net
