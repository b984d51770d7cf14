#include "client/cpp/expertmesh/client.h"

#include <optional>
#include <utility>

#include "absl/synchronization/notification.h"
#include "client/cpp/library/client_impl.h"
#include "client/cpp/library/forward_codec.h"
#include "client/cpp/library/forward_stream.h"
#include "client/cpp/library/retrying_call.h"
#include "common/base/address.h"
#include "common/base/clock.h"
#include "common/net/tls_options.h"
#include "common/wire/error_reason.h"

namespace expertmesh::client {
namespace {

constexpr char kForward[] = "/expertmesh.v1.Router/Forward";

net::GrpcOptions ToGrpcOptions(const ClientOptions& options) {
  net::GrpcOptions grpc;
  grpc.max_message_bytes = options.max_message_bytes;
  if (options.tls.has_value()) {
    grpc.tls = net::TlsOptions{options.tls->root_certificates, options.tls->private_key,
                               options.tls->certificate_chain, options.tls->server_name};
  }
  return grpc;
}

}  // namespace

Client::Impl::Impl(const std::string& target, const ClientOptions& client_options)
    : address(target),
      options(client_options),
      retries(client_options.max_attempts),
      timers(Clock::Real()),
      waits(&timers),
      data(&runtime, target, ToGrpcOptions(client_options)),
      control(&runtime, target, ToGrpcOptions(client_options)) {}

absl::StatusOr<Frame> Client::Impl::AskInFrames(const char* method, const Frame& request,
                                                Repetition repetition) {
  net::CallOptions call;
  call.deadline = Clock::Real()->Now() + options.describe_timeout;
  absl::Notification answered;
  absl::StatusOr<Frame> answer = absl::UnknownError("");
  RetryingCall::Start({&control, &retries, &waits, repetition}, method, request, call,
                      [&](absl::StatusOr<Frame> result) {
                        answer = std::move(result);
                        answered.Notify();
                      });
  answered.WaitForNotification();
  return answer;
}

ErrorDetails DetailsOf(const absl::Status& status) {
  expertmesh::ErrorDetails details = expertmesh::DetailsOf(status);
  return {std::move(details.reason), std::move(details.metadata), details.retry_delay,
          std::move(details.field_violations)};
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() { impl_->waits.Close(); }

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& address,
                                                        const ClientOptions& options) {
  if (absl::Status status = CheckAddress(address); !status.ok()) {
    return status;
  }
  if (const std::optional<net::TlsOptions> tls = ToGrpcOptions(options).tls; tls.has_value()) {
    if (absl::Status status = net::CheckTlsOptions(*tls); !status.ok()) {
      return status;
    }
  }
  return std::unique_ptr<Client>(new Client(std::make_unique<Impl>(address, options)));
}

void Client::ForwardAsync(uint32_t layer, const Matrix& hidden, const ForwardOptions& options,
                          ForwardCallback done) {
  const absl::StatusOr<Frame> request =
      EncodeForward(0, layer, hidden, options, impl_->options.max_message_bytes);
  if (!request.ok()) {
    done(request.status());
    return;
  }
  net::CallOptions call;
  if (options.timeout != absl::InfiniteDuration()) {
    call.deadline = Clock::Real()->Now() + options.timeout;
  }
  RetryingCall::Start({&impl_->data, &impl_->retries, &impl_->waits}, kForward, *request, call,
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
  return OpenForwardStream({.client = &impl_->data,
                            .timers = &impl_->timers,
                            .retries = &impl_->retries,
                            .waits = &impl_->waits,
                            .address = impl_->address,
                            .window_bytes = impl_->options.stream_window_bytes,
                            .max_message_bytes = impl_->options.max_message_bytes});
}

}  // namespace expertmesh::client
