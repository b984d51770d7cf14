#include "common/base/log_limit.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace expertmesh {

LogLimit::LogLimit(absl::Duration interval, Clock* clock) : interval_(interval), clock_(clock) {}

std::optional<uint64_t> LogLimit::Take() {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = clock_->Now();
  if (now < next_) {
    ++left_out_;
    return std::nullopt;
  }
  next_ = now + interval_;
  return std::exchange(left_out_, 0);
}

LatestLine::LatestLine(absl::Duration interval, TimerQueue* timers, Clock* clock, Writer write)
    : interval_(interval),
      clock_(clock),
      timers_(timers),
      write_(std::move(write)),
      timer_(timers) {}

LatestLine::~LatestLine() {
  TimerQueue::Id begun = 0;
  {
    absl::MutexLock lock(&mutex_);
    begun = timer_.CancelForGood();
    if (waiting_.has_value()) {
      WriteLocked(*waiting_);
    }
  }
  timers_->AwaitEnd(begun);
}

void LatestLine::Write(std::string line) {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = clock_->Now();
  if (!waiting_.has_value() && now >= next_) {
    WriteLocked(line);
    next_ = now + interval_;
    return;
  }
  if (waiting_.has_value()) {
    ++left_out_;
  } else {
    timer_.Set(next_, [this] { OnInterval(); });
  }
  waiting_ = std::move(line);
}

void LatestLine::OnInterval() {
  absl::MutexLock lock(&mutex_);
  if (!waiting_.has_value()) {
    return;
  }
  WriteLocked(*waiting_);
  next_ = clock_->Now() + interval_;
}

void LatestLine::WriteLocked(const std::string& line) {
  write_(absl::StrCat(line, LeftOutText(std::exchange(left_out_, 0))));
  waiting_.reset();
}

std::string LeftOutText(uint64_t left_out) {
  if (left_out == 0) {
    return "";
  }
  return absl::StrCat(" (", left_out, left_out == 1 ? " line" : " lines", " like it left out)");
}

}  // namespace expertmesh
