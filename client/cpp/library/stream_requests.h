// The requests of a ForwardStream that are in flight, over one call after the other.
#ifndef EXPERTMESH_CLIENT_CPP_LIBRARY_STREAM_REQUESTS_H_
#define EXPERTMESH_CLIENT_CPP_LIBRARY_STREAM_REQUESTS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/cpp/expertmesh/client.h"
#include "client/cpp/library/retry.h"
#include "common/base/timer_queue.h"
#include "common/net/grpc_client.h"
#include "common/wire/frame.h"

namespace expertmesh::client {

// Pointers must outlive the stream.
struct ForwardStreamOptions {
  net::GrpcClient* client = nullptr;
  TimerQueue* timers = nullptr;  // On Clock::Real().
  RetryPolicy* retries = nullptr;
  RetryTimers* waits = nullptr;
  std::string address;  // For messages.
  // Bytes that may wait to be sent, and bytes of the largest answer that is accepted.
  size_t window_bytes = 0;
  size_t max_message_bytes = 0;
  // Longest silence before a heartbeat: less than the 15 s after which proxies end idle streams.
  absl::Duration heartbeat_interval = absl::Seconds(10);
};

// A request stays here until it is answered; code that takes one out must answer it; as each can be
// taken only once, each is answered exactly once. A call that ends is followed by another, at once
// when something is in flight, else with the next request, and what has no answer is sent again.
// Thread-safe.
class StreamRequests : public std::enable_shared_from_this<StreamRequests> {
 public:
  explicit StreamRequests(const ForwardStreamOptions& options) : options_(options) {}

  // As ForwardStream::Send.
  void Send(uint32_t layer, const Matrix& hidden, const ForwardOptions& options,
            ForwardCallback done);

  // Refuses further requests with `why` and answers all with it.
  void Break(const absl::Status& why);

  // Sends a heartbeat if nothing was sent since the last time.
  void Beat();

  // After Break: waits until no call is open, and no callback runs nor ever will.
  void AwaitClosed();

  size_t size() const;
  // The reason once it is broken.
  absl::Status status() const;

 private:
  struct Asked {
    uint32_t layer = 0;
    Matrix hidden;
    ForwardOptions options;
  };
  struct Request {
    std::shared_ptr<const Asked> asked;  // All attempts share it.
    absl::Time deadline = absl::InfiniteFuture();
    TimerQueue::Id timer = 0;
    ForwardCallback done;
    uint32_t attempts = 0;  // Times that it was sent.
    bool waits = false;     // For the pause before it is sent again.
  };
  using ById = std::map<uint64_t, Request>;

  // What the end of a call means for what is in flight.
  struct AfterEnd {
    bool give_up = false;
    std::optional<absl::Duration> open_again;
    ById exhausted;
  };

  void StartTimer(uint64_t id, Request* request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Opens a call, which opening_ announced, and sends what is in flight.
  void Open();
  // Without effect when the request was answered, or no call is open: the next one sends it.
  void SendNow(uint64_t id);
  void OnFrame(const Frame& frame);
  // `ended`: of the call that ended.
  void OnClosed(const absl::Status& why, bool* ended);
  AfterEnd JudgeEnd(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Sees to it that the request is sent again; false where that is no use.
  bool TryAgain(uint64_t id, const absl::Status& why);
  // No effect when it has been answered.
  void Answer(uint64_t id, absl::StatusOr<ForwardResult> result);
  void AnswerAll(ById requests, const absl::Status& why);
  void Finish(Request request, absl::StatusOr<ForwardResult> result);

  const ForwardStreamOptions options_;
  mutable absl::Mutex mutex_;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  ById requests_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<net::ClientStream> stream_ ABSL_GUARDED_BY(mutex_);  // Null: none is open.
  bool opening_ ABSL_GUARDED_BY(mutex_) = false;
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;          // Whose end has not been dealt with.
  uint32_t failures_ ABSL_GUARDED_BY(mutex_) = 0;  // Calls that ended since the last answer.
  bool sent_something_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  int answering_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace expertmesh::client

#endif  // EXPERTMESH_CLIENT_CPP_LIBRARY_STREAM_REQUESTS_H_
