#include "client/cpp/library/watch.h"

#include <deque>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

namespace expertmesh::client {
namespace {

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

// One call: `on_frame` gets each of its messages, on this thread, until it gives an error. Returns
// that, or how the call ended.
absl::Status FollowCall(net::GrpcClient* client, const std::string& method,
                        const std::function<absl::Status(const Frame&)>& on_frame) {
  const auto inbox = std::make_shared<Inbox>();
  net::StreamCallbacks callbacks;
  callbacks.on_frame = [inbox](Frame frame) { inbox->Put(std::move(frame)); };
  callbacks.on_closed = [inbox](const absl::Status& why) { inbox->Close(why); };
  const std::shared_ptr<net::ClientStream> stream =
      client->OpenStream(method, {}, std::move(callbacks));
  absl::Status status = stream->Send(Frame());
  stream->CloseSend();
  while (status.ok()) {
    const absl::StatusOr<Frame> frame = inbox->Next();
    status = frame.ok() ? on_frame(*frame) : frame.status();
  }
  stream->Cancel();
  return status;
}

}  // namespace

absl::Status WatchFrames(const WatchMeans& means, const std::string& method,
                         const std::function<absl::StatusOr<bool>(const Frame&)>& on_frame) {
  uint32_t failures = 0;
  for (;;) {
    std::optional<absl::Status> result;  // For good, whatever becomes of the call.
    const absl::Status end = FollowCall(means.client, method, [&](const Frame& frame) {
      failures = 0;
      const absl::StatusOr<bool> more = on_frame(frame);
      if (!more.ok()) {
        result = more.status();
      } else if (!*more) {
        result = absl::OkStatus();
      }
      return result.has_value() ? absl::CancelledError("enough") : absl::OkStatus();
    });
    if (result.has_value()) {
      return *result;
    }
    const std::optional<absl::Duration> pause = means.retries->After(end, ++failures);
    if (!pause.has_value()) {
      return end;
    }
    absl::SleepFor(*pause);
  }
}

}  // namespace expertmesh::client
