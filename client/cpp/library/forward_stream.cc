#include "client/cpp/library/forward_stream.h"

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"

namespace expertmesh::client {
namespace {

class GrpcForwardStream final : public ForwardStream {
 public:
  explicit GrpcForwardStream(const ForwardStreamOptions& options)
      : requests_(std::make_shared<StreamRequests>(options)),
        timers_(options.timers),
        beat_interval_(options.heartbeat_interval / 2),
        beat_(options.timers) {
    absl::MutexLock lock(&mutex_);
    StartBeat();
  }

  ~GrpcForwardStream() override {
    TimerQueue::Id begun = 0;
    {
      absl::MutexLock lock(&mutex_);
      begun = beat_.CancelForGood();
      over_ = true;
    }
    timers_->AwaitEnd(begun);
    requests_->Break(absl::CancelledError("the stream was destroyed"));
    requests_->AwaitClosed();
  }

  void Send(uint32_t layer, const Matrix& hidden, const ForwardOptions& options,
            ForwardCallback done) override {
    requests_->Send(layer, hidden, options, std::move(done));
  }

  size_t InFlight() const override { return requests_->size(); }
  absl::Status status() const override { return requests_->status(); }

 private:
  // Twice in an interval, so that no silence is longer than one.
  void StartBeat() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    beat_.Set(Clock::Real()->Now() + beat_interval_, [this] {
      requests_->Beat();
      absl::MutexLock lock(&mutex_);
      if (!over_) {
        StartBeat();
      }
    });
  }

  const std::shared_ptr<StreamRequests> requests_;
  TimerQueue* const timers_;
  const absl::Duration beat_interval_;
  absl::Mutex mutex_;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  TimerSlot beat_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

ForwardStream::~ForwardStream() = default;

std::unique_ptr<ForwardStream> OpenForwardStream(const ForwardStreamOptions& options) {
  return std::make_unique<GrpcForwardStream>(options);
}

}  // namespace expertmesh::client
