#include "common/net/grpc_transport.h"

#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/address.h"
#include "common/net/grpc_client.h"
#include "common/net/reconnecting_streams.h"
#include "common/transport/pending_calls.h"

namespace expertmesh::net {
namespace {

constexpr char kComputeMethod[] = "/expertmesh.internal.v1.Expert/Compute";
constexpr char kWatchMethod[] = "/expertmesh.internal.v1.Expert/WatchStatus";
constexpr char kLoadMethod[] = "/expertmesh.internal.v1.Expert/LoadExperts";
constexpr char kUnloadMethod[] = "/expertmesh.internal.v1.Expert/UnloadExperts";
// Streams of an attempt.
constexpr size_t kData = 0;
constexpr size_t kStatus = 1;

class GrpcConnection final : public NodeConnection, public ReconnectingStreamsUser {
 public:
  GrpcConnection(GrpcRuntime* runtime, Clock* clock, TimerQueue* timers,
                 const GrpcTransportOptions& options, std::string address, NodeObserver* observer)
      : runtime_(runtime),
        clock_(clock),
        timers_(timers),
        options_(options),
        address_(std::move(address)),
        observer_(observer),
        streams_(std::make_shared<ReconnectingStreams>(
            clock, timers,
            ReconnectOptions{.backoff_initial = options.backoff_initial,
                             .backoff_max = options.backoff_max,
                             .silence_timeout = options.heartbeat_timeout,
                             .awake_since = options.awake_since},
            this)) {
    streams_->Start();
  }
  ~GrpcConnection() override {
    streams_->Close();
    calls_->Close(
        absl::UnavailableError(absl::StrCat("the connection to node ", address_, " was closed")));
  }

  absl::Status Send(Frame frame) override {
    const std::shared_ptr<ClientStream> stream = Up();
    if (stream == nullptr) {
      return absl::UnavailableError(absl::StrCat("node ", address_, " is not connected"));
    }
    return stream->Send(std::move(frame));
  }

  void PauseReading() override {
    if (const std::shared_ptr<ClientStream> stream = Up(); stream != nullptr) {
      stream->PauseReading();
    }
  }

  size_t QueuedBytes() const override {
    absl::MutexLock lock(&mutex_);
    return up_ == nullptr ? 0 : up_->QueuedBytes();
  }

  void LoadExperts(const internal::v1::LoadExpertsRequest& request, absl::Duration timeout,
                   LoadDone done) override {
    Call(kLoadMethod, Frame(request.SerializeAsString()), timeout,
         ParsedFor<internal::v1::LoadExpertsResponse>(std::move(done)));
  }
  void UnloadExperts(const internal::v1::UnloadExpertsRequest& request, absl::Duration timeout,
                     UnloadDone done) override {
    Call(kUnloadMethod, Frame(request.SerializeAsString()), timeout,
         ParsedFor<internal::v1::UnloadExpertsResponse>(std::move(done)));
  }

 private:
  std::shared_ptr<ClientStream> Up() const {
    absl::MutexLock lock(&mutex_);
    return up_;
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

  bool OpenStreams() override {
    if (const absl::Status status = CheckAddress(address_); !status.ok()) {
      observer_->OnDisconnected(status);
      return false;
    }
    data_open_ = false;
    first_status_.reset();
    GrpcOptions grpc = options_.grpc;
    grpc.max_message_bytes = options_.frame_limit_bytes;
    CallOptions call;
    call.send_queue_bytes = options_.window_bytes;
    data_ = streams_->Open(kData, "Compute", [&](StreamCallbacks callbacks) {
      return GrpcClient(runtime_, address_, grpc)
          .OpenStream(kComputeMethod, call, std::move(callbacks));
    });
    auto control_client = std::make_shared<GrpcClient>(runtime_, address_, grpc);
    const auto control = streams_->Open(kStatus, "WatchStatus", [&](StreamCallbacks callbacks) {
      return control_client->OpenStream(kWatchMethod, call, std::move(callbacks));
    });
    {
      absl::MutexLock lock(&mutex_);
      control_client_ = std::move(control_client);
    }
    internal::v1::WatchStatusRequest request;
    request.set_heartbeat_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.heartbeat)));
    // A refusal means that the stream has ended, which is heard anyway.
    control->Send(Frame(request.SerializeAsString())).IgnoreError();
    control->CloseSend();
    return true;
  }

  void OnOpen(size_t stream) override {
    if (stream == kData) {
      data_open_ = true;
      GoUpIfComplete();
    }
  }

  void OnFrame(size_t stream, Frame frame) override {
    if (stream == kStatus) {
      OnStatusFrame(frame);
    } else if (is_up_) {  // Before that, nothing has been asked for.
      observer_->OnFrame(std::move(frame));
    }
  }

  void OnStatusFrame(const Frame& frame) {
    internal::v1::WatchStatusResponse status;
    if (!status.ParseFromString(frame.Flatten())) {
      streams_->Fail(absl::InternalError("its status is not a valid WatchStatusResponse"));
    } else if (is_up_) {
      data_->ResumeReading();  // To see whether it still stands.
      observer_->OnStatus(status);
    } else if (first_status_.has_value() && !status.has_description()) {
      *status.mutable_description() = first_status_->description();
      first_status_ = std::move(status);
    } else if (!status.has_description()) {
      streams_->Fail(absl::InternalError("it did not describe itself"));
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
    streams_->ResetBackoff();
    {
      absl::MutexLock lock(&mutex_);
      up_ = data_;
    }
    observer_->OnStatus(*first_status_);
  }

  void OnDisconnected(const absl::Status& why) override {
    {
      absl::MutexLock lock(&mutex_);
      up_ = nullptr;
      control_client_ = nullptr;
    }
    data_ = nullptr;
    is_up_ = false;
    calls_->EndAll(absl::UnavailableError(
        absl::StrCat("node ", address_, " is gone before it answered: ", why.message())));
    observer_->OnDisconnected(
        absl::Status(why.code(), absl::StrCat("node ", address_, ": ", why.message())));
  }

  GrpcRuntime* const runtime_;
  Clock* const clock_;
  TimerQueue* const timers_;
  const GrpcTransportOptions options_;
  const std::string address_;
  NodeObserver* const observer_;
  const std::shared_ptr<ReconnectingStreams> streams_;

  // Used in functions of ReconnectingStreamsUser only.
  bool is_up_ = false;
  bool data_open_ = false;
  std::optional<internal::v1::WatchStatusResponse> first_status_;
  std::shared_ptr<ClientStream> data_;

  // Shared with calls that gRPC still works on.
  const std::shared_ptr<PendingCalls> calls_ = std::make_shared<PendingCalls>();

  mutable absl::Mutex mutex_;
  std::shared_ptr<ClientStream> up_ ABSL_GUARDED_BY(mutex_);  // data_ while up.
  // That of the status.
  std::shared_ptr<GrpcClient> control_client_ ABSL_GUARDED_BY(mutex_);
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
  return std::make_unique<GrpcConnection>(runtime_, clock_, &timers_, options_, std::move(address),
                                          observer);
}

}  // namespace expertmesh::net
