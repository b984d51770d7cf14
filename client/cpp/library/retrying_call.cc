#include "client/cpp/library/retrying_call.h"

#include <optional>
#include <utility>

#include "common/base/clock.h"
#include "common/base/status_context.h"

namespace expertmesh::client {

void RetryingCall::Start(const Means& means, const std::string& method, const Frame& request,
                         const net::CallOptions& options,
                         std::function<void(absl::StatusOr<Frame>)> done) {
  const std::shared_ptr<RetryingCall> call(new RetryingCall());
  call->means_ = means;
  call->method_ = method;
  call->request_ = request;
  call->options_ = options;
  call->done_ = std::move(done);
  call->Attempt();
}

void RetryingCall::Attempt() {
  ++attempts_;
  means_.client->UnaryCall(method_, request_, options_,
                           [self = shared_from_this()](absl::StatusOr<Frame> answer) {
                             self->OnAnswer(std::move(answer));
                           });
}

void RetryingCall::OnAnswer(absl::StatusOr<Frame> answer) {
  std::optional<absl::Duration> pause;
  if (answer.ok()) {
    means_.retries->Answered();
  } else if (means_.repetition == Repetition::kNotTheSame && IsLostCall(answer.status())) {
    answer = WithContext("whether this was carried out is not known, so it is not sent again",
                         answer.status());
  } else {
    pause = means_.retries->After(answer.status(), attempts_);
  }
  if (!pause.has_value() || Clock::Real()->Now() + *pause >= options_.deadline) {
    std::exchange(done_, nullptr)(std::move(answer));
    return;
  }
  means_.waits->Wait(*pause, [self = shared_from_this()](const absl::Status& status) {
    if (status.ok()) {
      self->Attempt();
    } else {
      std::exchange(self->done_, nullptr)(status);
    }
  });
}

}  // namespace expertmesh::client
