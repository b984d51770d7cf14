#include "router_service/serve/admission.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/wire/error_reason.h"
#include "router_service/batch/layer_batcher.h"
#include "router_service/batch/trace_stage.h"

namespace expertmesh::serve {
namespace {

// Part of the time until its deadline that a request may be expected to take: the rate is a mean.
constexpr double kTimeShare = 2.0 / 3;
// Callers that are refused come back after at least, and at most.
constexpr absl::Duration kSoonest = absl::Milliseconds(20);
constexpr absl::Duration kLatest = absl::Seconds(2);

// `again`: when there will be room.
absl::Status Full(const std::string& message, uint64_t limit, absl::Duration again) {
  return WithRetryDelay(
      ErrorOf(v1::ERROR_REASON_QUEUE_FULL, message, {{"limit", absl::StrCat(limit)}}),
      std::clamp(again, kSoonest, kLatest));
}

}  // namespace

Admission::Admission(const AdmissionLimits& limits, metrics::RouterMetrics* metrics,
                     tracing::Tracer* tracer, Clock* clock)
    : limits_(limits), metrics_(metrics), tracer_(tracer), clock_(clock) {}

absl::Status Admission::Admit(uint64_t rows, absl::Time arrival, absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  if (draining_) {
    return batch::RouterIsStopping();
  }
  if (tokens_ + rows > limits_.most_tokens) {
    const double rate = rate_.rate(arrival).value_or(0);
    return Full(absl::StrCat("the router holds ", tokens_, " tokens of at most ",
                             limits_.most_tokens, "; retry later"),
                limits_.most_tokens,
                rate > 0 ? absl::Seconds(static_cast<double>(rows) / rate) : kSoonest);
  }
  if (tokens_ > 0) {
    RETURN_IF_ERROR(CheckTime(tokens_ + rows, arrival, deadline));
  }
  tokens_ += rows;
  ++requests_;
  rate_.Update(tokens_, /*served=*/0, arrival);
  metrics_->tokens.Increment(static_cast<double>(rows));
  metrics_->tokens_in_flight.Set(static_cast<double>(tokens_));
  return absl::OkStatus();
}

absl::Status Admission::CheckTime(uint64_t tokens, absl::Time now, absl::Time deadline) const {
  const std::optional<absl::Duration> time = rate_.TimeFor(tokens, now);
  if (!time.has_value()) {
    return absl::OkStatus();
  }
  absl::Duration most = kTimeShare * (deadline - now);
  if (tokens > limits_.least_tokens) {
    most = std::min(most, limits_.queue_time);
  }
  if (*time <= most) {
    return absl::OkStatus();
  }
  const double limit = static_cast<double>(tokens) * (most / *time);
  return Full(absl::StrCat("overloaded: ", tokens_, " tokens wait or are served, which takes ",
                           absl::FormatDuration(absl::Trunc(*time, absl::Milliseconds(1))),
                           " with this request; at most ",
                           absl::FormatDuration(absl::Trunc(most, absl::Milliseconds(1))),
                           " would be soon enough for it; retry later, or allow more time"),
              static_cast<uint64_t>(limit), *time - most);
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

absl::Time Admission::OnAnswer(const batch::ForwardJob& job, absl::StatusCode code) {
  metrics_->CountRequest(code);
  const absl::Time now = clock_->Now();
  const absl::Duration duration = now - job.arrival();
  const trace::TraceContext& span = job.trace().span;
  if (span.sampled() ||
      (tracer_ != nullptr &&
       tracer_->KeepFor(code, duration, /*retried=*/false) != tracing::Keep::kNo)) {
    metrics_->request_seconds.Observe(duration, span, absl::Now());
  } else {
    metrics_->request_seconds.Observe(duration);
  }
  if (!job.batched() && job.ClaimNote()) {
    batch::NoteUnbatched(tracer_, job, job.arrival(), code, now);
  }
  // Before answering: a caller that has its answer may send as much again at once.
  absl::MutexLock lock(&mutex_);
  tokens_ -= job.rows();
  rate_.Update(tokens_, code == absl::StatusCode::kOk ? job.rows() : 0, now);
  metrics_->tokens_in_flight.Set(static_cast<double>(tokens_));
  return now;
}

void Admission::OnAnswered() {
  absl::MutexLock lock(&mutex_);
  if (--requests_ == 0) {
    idle_.SignalAll();
  }
}

}  // namespace expertmesh::serve
