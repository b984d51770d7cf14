#include "router_service/batch/layer_batcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/wire/error_reason.h"

namespace expertmesh::batch {
namespace {

// Weight of the newest service time in the running mean.
constexpr double kServiceTimeWeight = 0.2;
// The same of the share of tokens that came back, and the share from which they are waited for.
constexpr double kReturnWeight = 0.25;
constexpr double kWorthWaiting = 0.5;
// Batches whose memory is kept, and the jobs of the largest of them.
constexpr size_t kMostSpare = 4;
constexpr size_t kMostJobsKept = 1024;

}  // namespace

absl::Status RouterIsStopping() {
  return ErrorOf(v1::ERROR_REASON_ROUTER_STOPPING,
                 "this router is stopping; send to another, or retry later");
}

LayerBatcher::LayerBatcher(const BatcherOptions& options, Clock* clock, TimerQueue* timers,
                           Dispatch dispatch)
    : options_(options),
      clock_(clock),
      timers_(timers),
      dispatch_(std::move(dispatch)),
      timer_(timers) {}

LayerBatcher::~LayerBatcher() { Stop(); }

void LayerBatcher::Stop() {
  RingQueue<ForwardJobPtr> waiting;
  TimerQueue::Id begun = 0;
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    std::swap(waiting, waiting_);
    waiting_tokens_ = 0;
    begun = timer_.CancelForGood();
  }
  timers_->AwaitEnd(begun);
  while (!waiting.empty()) {
    waiting.Pop()->Fail(RouterIsStopping());
  }
}

absl::Status LayerBatcher::Add(ForwardJobPtr job) {
  Leaving leaving;
  {
    absl::MutexLock lock(&mutex_);
    if (stopped_) {
      return RouterIsStopping();
    }
    const uint64_t rows = job->rows();
    if (waiting_tokens_ > 0 && waiting_tokens_ + rows > options_.max_queue_tokens) {
      return ErrorOf(
          v1::ERROR_REASON_QUEUE_FULL,
          absl::StrCat("the queue of layer ", job->request().layer(), " holds ", waiting_tokens_,
                       " tokens of at most ", options_.max_queue_tokens, "; retry later"),
          {{"limit", absl::StrCat(options_.max_queue_tokens)}});
    }
    waiting_tokens_ += rows;
    if (clock_->Now() <= linger_end_) {
      returned_tokens_ += rows;
    }
    earliest_deadline_ = std::min(earliest_deadline_, job->deadline());
    waiting_.push_back(std::move(job));
    CloseDue(&leaving);
  }
  DispatchAll(std::move(leaving));
  return absl::OkStatus();
}

void LayerBatcher::BatchDone(uint64_t tokens, absl::Duration service_time) {
  Leaving leaving;
  {
    absl::MutexLock lock(&mutex_);
    --in_flight_;
    in_flight_tokens_ -= tokens;
    service_time_ = service_time_ == absl::ZeroDuration()
                        ? service_time
                        : service_time_ + kServiceTimeWeight * (service_time - service_time_);
    if (answered_tokens_ > 0) {
      const double share = std::min(
          1.0, static_cast<double>(returned_tokens_) / static_cast<double>(answered_tokens_));
      return_share_ += kReturnWeight * (share - return_share_);
    }
    answered_tokens_ = tokens;
    returned_tokens_ = 0;
    linger_end_ = clock_->Now() + options_.max_linger_share * service_time_;
    CloseDue(&leaving);
  }
  DispatchAll(std::move(leaving));
}

void LayerBatcher::OnTimer() {
  Leaving leaving;
  {
    absl::MutexLock lock(&mutex_);
    timer_due_ = absl::InfiniteFuture();
    CloseDue(&leaving);
  }
  DispatchAll(std::move(leaving));
}

absl::Time LayerBatcher::DueTime() const {
  if (waiting_.empty() || in_flight_tokens_ >= options_.max_in_flight_tokens) {
    return absl::InfiniteFuture();
  }
  if (waiting_tokens_ >= options_.max_batch_tokens) {
    return absl::InfinitePast();
  }
  absl::Time due = earliest_deadline_ - service_time_;
  if (in_flight_ == 0) {
    absl::Time start = waiting_.front()->arrival() + options_.max_queue_delay;
    if (return_share_ >= kWorthWaiting && returned_tokens_ < answered_tokens_) {
      start = std::max(start, linger_end_);
    }
    due = std::min(due, start);
  }
  return due;
}

void LayerBatcher::CloseDue(Leaving* leaving) {
  const absl::Time now = clock_->Now();
  absl::Time due = DueTime();
  while (due <= now && leaving->batch.empty()) {
    Close(leaving);
    in_flight_ += leaving->batch.empty() ? 0 : 1;
    due = DueTime();
  }
  // What is due after this batch is taken when it has been dispatched.
  if (due > now && due != timer_due_) {
    timer_due_ = due;
    if (due == absl::InfiniteFuture()) {
      timer_.Cancel();
    } else {
      timer_.Set(due, [this] { OnTimer(); });
    }
  }
}

void LayerBatcher::Close(Leaving* leaving) {
  std::vector<ForwardJobPtr>& batch = leaving->batch;
  if (batch.capacity() == 0 && !spare_.empty()) {
    batch.swap(spare_.back());
    spare_.pop_back();
  }
  uint64_t tokens = 0;
  while (!waiting_.empty()) {
    const ForwardJob& next = *waiting_.front();
    // Its deadline may have passed, or its caller gone away, while it waited.
    const bool cancelled = next.context()->cancelled();
    const bool wanted = !cancelled && !next.answered();
    if (wanted && !batch.empty() && tokens + next.rows() > options_.max_batch_tokens) {
      break;
    }
    ForwardJobPtr job = waiting_.Pop();
    waiting_tokens_ -= job->rows();
    if (wanted) {
      tokens += job->rows();
      batch.push_back(std::move(job));
    } else if (cancelled) {
      leaving->cancelled.push_back(std::move(job));
    }
  }
  in_flight_tokens_ += tokens;
  earliest_deadline_ = absl::InfiniteFuture();
  for (size_t i = 0; i < waiting_.size(); ++i) {
    earliest_deadline_ = std::min(earliest_deadline_, waiting_[i]->deadline());
  }
}

void LayerBatcher::DispatchAll(Leaving leaving) {
  while (!leaving.batch.empty()) {
    dispatch_(std::move(leaving.batch));
    leaving.batch.clear();
    absl::MutexLock lock(&mutex_);
    CloseDue(&leaving);
    if (leaving.batch.empty() && spare_.size() < kMostSpare && leaving.batch.capacity() > 0 &&
        leaving.batch.capacity() <= kMostJobsKept) {
      spare_.push_back(std::move(leaving.batch));
    }
  }
  for (const ForwardJobPtr& job : leaving.cancelled) {
    job->Fail(absl::CancelledError("the caller went away while its request waited"));
  }
}

}  // namespace expertmesh::batch
