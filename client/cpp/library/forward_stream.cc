#include "client/cpp/library/forward_stream.h"

#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/cpp/library/forward_codec.h"
#include "common/base/clock.h"

namespace expertmesh::client {
namespace {

constexpr char kForwardStream[] = "/expertmesh.v1.Router/ForwardStream";

// Requests in flight. Code that takes a request out of here must answer it; as each can be taken
// only once, each is answered exactly once.
class PendingRequests : public std::enable_shared_from_this<PendingRequests> {
 public:
  PendingRequests(TimerQueue* timers, std::string address)
      : timers_(timers), address_(std::move(address)) {}

  // The request's id; the error when the stream is broken, and `done` is left alone.
  absl::StatusOr<uint64_t> Add(absl::Duration timeout, ForwardCallback* done) {
    absl::MutexLock lock(&mutex_);
    if (!broken_.ok()) {
      return broken_;
    }
    const uint64_t id = next_id_++;
    Request& request = requests_[id];
    request.done = std::move(*done);
    if (timeout != absl::InfiniteDuration()) {
      request.timer =
          timers_->Schedule(Clock::Real()->Now() + timeout, [weak = weak_from_this(), id, timeout] {
            if (const auto self = weak.lock()) {
              self->Answer(id, TooLate(timeout));
            }
          });
    }
    return id;
  }

  // No effect when it has been answered.
  void Answer(uint64_t id, absl::StatusOr<ForwardResult> result) {
    Request request;
    {
      absl::MutexLock lock(&mutex_);
      const auto found = requests_.find(id);
      if (found == requests_.end()) {
        return;
      }
      request = std::move(found->second);
      requests_.erase(found);
      ++answering_;
    }
    Finish(std::move(request), std::move(result));
    absl::MutexLock lock(&mutex_);
    --answering_;
  }

  // Refuses further requests with `why` and answers all with it.
  void Break(const absl::Status& why) {
    absl::flat_hash_map<uint64_t, Request> requests;
    {
      absl::MutexLock lock(&mutex_);
      if (broken_.ok()) {
        broken_ = why;
      }
      requests.swap(requests_);
      ++answering_;
    }
    for (auto& [id, request] : requests) {
      Finish(std::move(request), why);
    }
    absl::MutexLock lock(&mutex_);
    --answering_;
  }

  void OnFrame(const Frame& frame) {
    absl::StatusOr<ForwardAnswer> answer = DecodeForward(frame);
    if (answer.ok()) {
      Answer(answer->request_id, std::move(answer->result));
    } else {
      // Which request it was meant for cannot be known, and so none can be trusted to be answered.
      Break(absl::UnavailableError(
          absl::StrCat("stream to ", address_, ": ", answer.status().message())));
    }
  }

  void OnClosed(const absl::Status& why) {
    Break(absl::UnavailableError(absl::StrCat(
        "the stream to ", address_, " ended: ", why.ok() ? "the router closed it" : why.message(),
        "; open another")));
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }

  // Waits until no callback runs nor ever will.
  void AwaitClosed() {
    absl::MutexLock lock(&mutex_);
    const auto over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return closed_ && answering_ == 0;
    };
    mutex_.Await(absl::Condition(&over));
  }

  size_t size() const {
    absl::MutexLock lock(&mutex_);
    return requests_.size();
  }

  absl::Status status() const {
    absl::MutexLock lock(&mutex_);
    return broken_;
  }

 private:
  struct Request {
    ForwardCallback done;
    TimerQueue::Id timer = 0;
  };

  static absl::Status TooLate(absl::Duration timeout) {
    return absl::DeadlineExceededError(
        absl::StrCat("no answer within the timeout of ", absl::FormatDuration(timeout)));
  }

  void Finish(Request request, absl::StatusOr<ForwardResult> result) {
    if (request.timer != 0) {
      timers_->Cancel(request.timer);
    }
    request.done(std::move(result));
  }

  TimerQueue* const timers_;
  const std::string address_;
  mutable absl::Mutex mutex_;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::flat_hash_map<uint64_t, Request> requests_ ABSL_GUARDED_BY(mutex_);
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int answering_ ABSL_GUARDED_BY(mutex_) = 0;
};

class GrpcForwardStream final : public ForwardStream {
 public:
  GrpcForwardStream(net::GrpcClient* client, TimerQueue* timers, const std::string& address,
                    size_t window_bytes)
      : requests_(std::make_shared<PendingRequests>(timers, address)) {
    net::CallOptions options;
    options.send_queue_bytes = window_bytes;
    net::StreamCallbacks callbacks;
    callbacks.on_frame = [requests = requests_](Frame frame) { requests->OnFrame(frame); };
    callbacks.on_closed = [requests = requests_](const absl::Status& why) {
      requests->OnClosed(why);
    };
    stream_ = client->OpenStream(kForwardStream, options, std::move(callbacks));
  }

  ~GrpcForwardStream() override {
    requests_->Break(absl::CancelledError("the stream was destroyed"));
    stream_->Cancel();
    requests_->AwaitClosed();
  }

  void Send(uint32_t layer, const Matrix& hidden, const ForwardOptions& options,
            ForwardCallback done) override {
    const absl::StatusOr<uint64_t> id = requests_->Add(options.timeout, &done);
    if (!id.ok()) {
      done(id.status());
      return;
    }
    absl::StatusOr<Frame> frame = EncodeForward(*id, layer, hidden, options);
    const absl::Status sent =
        frame.ok() ? stream_->Send(*std::move(frame)) : std::move(frame).status();
    if (!sent.ok()) {
      requests_->Answer(*id, sent);
    }
  }

  size_t InFlight() const override { return requests_->size(); }
  absl::Status status() const override { return requests_->status(); }

 private:
  const std::shared_ptr<PendingRequests> requests_;
  std::shared_ptr<net::ClientStream> stream_;
};

}  // namespace

ForwardStream::~ForwardStream() = default;

std::unique_ptr<ForwardStream> OpenForwardStream(net::GrpcClient* client, TimerQueue* timers,
                                                 const std::string& address, size_t window_bytes) {
  return std::make_unique<GrpcForwardStream>(client, timers, address, window_bytes);
}

}  // namespace expertmesh::client
