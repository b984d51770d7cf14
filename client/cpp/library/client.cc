#include "client/cpp/expertmesh/client.h"

#include <deque>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "client/cpp/library/describe_codec.h"
#include "client/cpp/library/forward_codec.h"
#include "client/cpp/library/forward_stream.h"
#include "common/base/address.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"
#include "common/net/grpc_client.h"
#include "common/net/grpc_runtime.h"

namespace expertmesh::client {
namespace {

constexpr char kForward[] = "/expertmesh.v1.Router/Forward";
constexpr char kDescribeModel[] = "/expertmesh.v1.Router/DescribeModel";
constexpr char kGetTopology[] = "/expertmesh.v1.Control/GetTopology";
constexpr char kWatchTopology[] = "/expertmesh.v1.Control/WatchTopology";
constexpr char kHealthCheck[] = "/grpc.health.v1.Health/Check";

net::GrpcOptions ToGrpcOptions(const ClientOptions& options) {
  net::GrpcOptions grpc;
  grpc.max_message_bytes = options.max_message_bytes;
  return grpc;
}

// Messages of a server-streaming call, handed from network threads to one that waits.
class Inbox {
 public:
  void Put(Frame frame) {
    absl::MutexLock lock(&mutex_);
    frames_.push_back(std::move(frame));
  }
  void Close(const absl::Status& why) {
    absl::MutexLock lock(&mutex_);
    closed_ = why;
  }
  // The next message, or how the call ended. OK and nothing never comes.
  absl::StatusOr<Frame> Next() {
    absl::MutexLock lock(&mutex_);
    const auto something = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !frames_.empty() || closed_.has_value();
    };
    mutex_.Await(absl::Condition(&something));
    if (frames_.empty()) {
      return closed_->ok() ? absl::UnavailableError("the router ended the stream") : *closed_;
    }
    Frame frame = std::move(frames_.front());
    frames_.pop_front();
    return frame;
  }

 private:
  absl::Mutex mutex_;
  std::deque<Frame> frames_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

struct Client::Impl {
  Impl(const std::string& target, const ClientOptions& client_options)
      : address(target),
        options(client_options),
        data(&runtime, target, ToGrpcOptions(client_options)),
        control(&runtime, target, ToGrpcOptions(client_options)) {}

  // Waits for the answer of a call that describes.
  absl::StatusOr<Frame> Ask(const char* method, const Frame& request) {
    net::CallOptions call;
    call.deadline = Clock::Real()->Now() + options.describe_timeout;
    absl::Notification answered;
    absl::StatusOr<Frame> answer = absl::UnknownError("");
    control.UnaryCall(method, request, call, [&](absl::StatusOr<Frame> result) {
      answer = std::move(result);
      answered.Notify();
    });
    answered.WaitForNotification();
    return answer;
  }

  const std::string address;
  const ClientOptions options;
  // Gone after `runtime`, whose end answers the requests that have timers.
  TimerQueue timers{Clock::Real()};
  net::GrpcRuntime runtime;
  // Two connections, so that tensors do not hold up small messages.
  net::GrpcClient data;
  net::GrpcClient control;
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& address,
                                                        const ClientOptions& options) {
  if (absl::Status status = CheckAddress(address); !status.ok()) {
    return status;
  }
  return std::unique_ptr<Client>(new Client(std::make_unique<Impl>(address, options)));
}

void Client::ForwardAsync(uint32_t layer, const Matrix& hidden, const ForwardOptions& options,
                          ForwardCallback done) {
  const absl::StatusOr<Frame> request = EncodeForward(0, layer, hidden, options);
  if (!request.ok()) {
    done(request.status());
    return;
  }
  net::CallOptions call;
  if (options.timeout != absl::InfiniteDuration()) {
    call.deadline = Clock::Real()->Now() + options.timeout;
  }
  impl_->data.UnaryCall(kForward, *request, call,
                        [done = std::move(done)](absl::StatusOr<Frame> frame) {
                          if (!frame.ok()) {
                            done(frame.status());
                            return;
                          }
                          absl::StatusOr<ForwardAnswer> answer = DecodeForward(*frame);
                          if (answer.ok()) {
                            done(std::move(answer->result));
                          } else {
                            done(answer.status());
                          }
                        });
}

absl::StatusOr<ForwardResult> Client::Forward(uint32_t layer, const Matrix& hidden,
                                              const ForwardOptions& options) {
  absl::Notification answered;
  absl::StatusOr<ForwardResult> answer = absl::UnknownError("");
  ForwardAsync(layer, hidden, options, [&](absl::StatusOr<ForwardResult> result) {
    answer = std::move(result);
    answered.Notify();
  });
  answered.WaitForNotification();
  return answer;
}

std::unique_ptr<ForwardStream> Client::OpenStream() {
  return OpenForwardStream(&impl_->data, &impl_->timers, impl_->address,
                           impl_->options.stream_window_bytes);
}

absl::StatusOr<ModelInfo> Client::DescribeModel() {
  const absl::StatusOr<Frame> answer = impl_->Ask(kDescribeModel, Frame());
  if (!answer.ok()) {
    return answer.status();
  }
  return DecodeModel(*answer);
}

absl::StatusOr<client::Topology> Client::Topology() {
  const absl::StatusOr<Frame> answer = impl_->Ask(kGetTopology, Frame());
  if (!answer.ok()) {
    return answer.status();
  }
  return DecodeTopology(*answer);
}

absl::Status Client::WatchTopology(const std::function<bool(const client::Topology&)>& on_change) {
  const auto inbox = std::make_shared<Inbox>();
  net::StreamCallbacks callbacks;
  callbacks.on_frame = [inbox](Frame frame) { inbox->Put(std::move(frame)); };
  callbacks.on_closed = [inbox](const absl::Status& why) { inbox->Close(why); };
  const std::shared_ptr<net::ClientStream> stream =
      impl_->control.OpenStream(kWatchTopology, {}, std::move(callbacks));
  absl::Status status = stream->Send(Frame());
  stream->CloseSend();
  while (status.ok()) {
    absl::StatusOr<Frame> frame = inbox->Next();
    if (!frame.ok()) {
      return frame.status();
    }
    const absl::StatusOr<client::Topology> topology = DecodeTopology(*frame);
    if (!topology.ok()) {
      status = topology.status();
    } else if (!on_change(*topology)) {
      break;
    }
  }
  stream->Cancel();
  return status;
}

absl::StatusOr<bool> Client::Health(const std::string& service) {
  const absl::StatusOr<Frame> answer = impl_->Ask(kHealthCheck, EncodeHealthCheck(service));
  if (!answer.ok()) {
    return answer.status();
  }
  return DecodeHealth(*answer);
}

}  // namespace expertmesh::client
