#include "client/cpp/command/traffic.h"

#include <sys/prctl.h>

#include <algorithm>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/base/clock.h"

namespace expertmesh::command {
namespace {

// What all callers have seen.
class Record {
 public:
  explicit Record(const std::function<void()>& answered) : answered_(answered) {}

  // Counts one answer. After the last one is counted, this object may be gone.
  void Add(absl::Duration took, const absl::Status& status) {
    if (answered_) {
      answered_();
    }
    absl::MutexLock lock(&mutex_);
    ++answers_;
    if (status.ok()) {
      report_.latencies_us.push_back(absl::ToDoubleMicroseconds(took));
    } else {
      ++report_.failed;
      report_.status.Update(status);
    }
  }

  bool ok() const {
    absl::MutexLock lock(&mutex_);
    return report_.status.ok();
  }

  void AwaitAnswers(uint64_t count) {
    absl::MutexLock lock(&mutex_);
    const auto all = [this, count]()
                         ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return answers_ == count; };
    mutex_.Await(absl::Condition(&all));
  }

  TrafficReport Take(absl::Duration took) {
    absl::MutexLock lock(&mutex_);
    report_.seconds = absl::ToDoubleSeconds(took);
    return std::move(report_);
  }

 private:
  const std::function<void()>& answered_;
  mutable absl::Mutex mutex_;
  uint64_t answers_ ABSL_GUARDED_BY(mutex_) = 0;
  TrafficReport report_ ABSL_GUARDED_BY(mutex_);
};

void CallInTurn(const TrafficOptions& options, size_t caller, const SendRequest& send,
                Record* record) {
  Clock* const clock = Clock::Real();
  const absl::Time begin = clock->Now();
  for (uint64_t index = 0; record->ok(); ++index) {
    const absl::Time sent = clock->Now();
    if (options.duration.has_value() ? sent - begin >= *options.duration
                                     : index == options.requests) {
      return;
    }
    absl::Notification answered;
    absl::Status status;
    absl::Time at;
    send(caller, index, [&](const absl::Status& answer) {
      at = clock->Now();
      status = answer;
      answered.Notify();
    });
    answered.WaitForNotification();
    record->Add(at - sent, status);
  }
}

void CallAtFixedTimes(const TrafficOptions& options, const SendRequest& send, Record* record) {
  // The default would wake this thread up to 50 us late.
  prctl(PR_SET_TIMERSLACK, 1UL);
  Clock* const clock = Clock::Real();
  const absl::Duration gap = absl::Seconds(1) / options.rate;
  const uint64_t count = options.duration.has_value()
                             ? std::max<uint64_t>(1, static_cast<uint64_t>(*options.duration / gap))
                             : options.requests;
  const absl::Time begin = clock->Now() + absl::Milliseconds(1);
  for (uint64_t index = 0; index < count; ++index) {
    const absl::Time meant = begin + static_cast<double>(index) * gap;
    absl::SleepFor(meant - clock->Now());
    send(0, index, [clock, meant, record](const absl::Status& answer) {
      record->Add(clock->Now() - meant, answer);
    });
  }
  record->AwaitAnswers(count);
}

}  // namespace

TrafficReport RunTraffic(const TrafficOptions& options, const SendRequest& send,
                         const std::function<void()>& answered) {
  Record record(answered);
  const absl::Time begin = Clock::Real()->Now();
  std::vector<std::thread> callers;
  if (options.rate > 0) {
    callers.emplace_back([&] { CallAtFixedTimes(options, send, &record); });
  } else {
    for (size_t caller = 0; caller < options.callers; ++caller) {
      callers.emplace_back([&, caller] { CallInTurn(options, caller, send, &record); });
    }
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  return record.Take(Clock::Real()->Now() - begin);
}

}  // namespace expertmesh::command
