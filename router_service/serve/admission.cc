#include "router_service/serve/admission.h"

#include "absl/strings/str_cat.h"
#include "common/wire/error_reason.h"
#include "router_service/batch/layer_batcher.h"

namespace expertmesh::serve {

Admission::Admission(uint64_t max_tokens, metrics::RouterMetrics* metrics, Clock* clock)
    : max_tokens_(max_tokens), metrics_(metrics), clock_(clock) {}

absl::Status Admission::Admit(uint64_t rows) {
  absl::MutexLock lock(&mutex_);
  if (draining_) {
    return batch::RouterIsStopping();
  }
  if (tokens_ + rows > max_tokens_) {
    return ErrorOf(v1::ERROR_REASON_QUEUE_FULL,
                   absl::StrCat("the router holds ", tokens_, " tokens of at most ", max_tokens_,
                                "; retry later"),
                   {{"limit", absl::StrCat(max_tokens_)}});
  }
  tokens_ += rows;
  ++requests_;
  metrics_->tokens.Increment(static_cast<double>(rows));
  metrics_->tokens_in_flight.Set(static_cast<double>(tokens_));
  return absl::OkStatus();
}

void Admission::BatchStarted() {
  absl::MutexLock lock(&mutex_);
  ++batches_;
}

void Admission::BatchFinished() {
  absl::MutexLock lock(&mutex_);
  if (--batches_ == 0) {
    idle_.SignalAll();
  }
}

bool Admission::Drain(absl::Duration timeout) {
  const absl::Time deadline = clock_->Now() + timeout;
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  while (batches_ > 0 || requests_ > 0) {
    if (clock_->WaitUntil(&mutex_, &idle_, deadline)) {
      return batches_ == 0 && requests_ == 0;
    }
  }
  return true;
}

void Admission::OnAnswer(const batch::ForwardJob& job, absl::StatusCode code) {
  metrics_->CountRequest(code);
  metrics_->request_seconds.Observe(absl::ToDoubleSeconds(clock_->Now() - job.arrival()));
  // Before answering: a caller that has its answer may send as much again at once.
  absl::MutexLock lock(&mutex_);
  tokens_ -= job.rows();
  metrics_->tokens_in_flight.Set(static_cast<double>(tokens_));
}

void Admission::OnAnswered() {
  absl::MutexLock lock(&mutex_);
  if (--requests_ == 0) {
    idle_.SignalAll();
  }
}

}  // namespace expertmesh::serve
