// Streams to one peer that are kept open: when one of them ends, or nothing is heard on any for too
// long, all are cancelled, and opened again after a pause that grows from failure to failure.
#ifndef EXPERTMESH_COMMON_NET_RECONNECTING_STREAMS_H_
#define EXPERTMESH_COMMON_NET_RECONNECTING_STREAMS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"
#include "common/net/grpc_client.h"
#include "common/transport/callback_serializer.h"
#include "common/wire/frame.h"

namespace expertmesh::net {

struct ReconnectOptions {
  // Pause after a failed attempt: backoff_initial at first, doubled after each failure up to
  // backoff_max, and back to backoff_initial by ResetBackoff().
  absl::Duration backoff_initial = absl::Milliseconds(100);
  absl::Duration backoff_max = absl::Seconds(1);
  // Silence that ends an attempt.
  absl::Duration silence_timeout = absl::Seconds(3);
  // Since when this process has run without a pause, whose silence is not the peer's, on the same
  // clock. Null: always.
  std::function<absl::Time()> awake_since = nullptr;
};

// Uses the streams. Calls come one after the other and must not block. What comes of an attempt
// that is over is not heard.
class ReconnectingStreamsUser {
 public:
  virtual ~ReconnectingStreamsUser() = default;
  // Begins an attempt by Open(). False: it cannot, and there will be no other.
  virtual bool OpenStreams() = 0;
  // The peer has accepted the stream of that number; a frame came on it.
  virtual void OnOpen(size_t /*stream*/) {}
  virtual void OnFrame(size_t stream, Frame frame) = 0;
  // The attempt is over and the pause before the next one has begun.
  virtual void OnDisconnected(const absl::Status& why) = 0;
};

// Shared, as streams and timers that end late still know it.
class ReconnectingStreams : public std::enable_shared_from_this<ReconnectingStreams> {
 public:
  // Pointers must outlive Close().
  ReconnectingStreams(Clock* clock, TimerQueue* timers, ReconnectOptions options,
                      ReconnectingStreamsUser* user);

  // The first attempt is made by the timers' thread. Once.
  void Start();
  // Cancels the streams and waits for a running function of the user; none runs afterwards. Not
  // from such a function.
  void Close();

  // Runs `callback` as if it were a function of the user. Any thread.
  template <typename Callback>
  void Run(Callback callback) {
    serializer_.Run(std::move(callback));
  }

  // The rest is for the user's functions.

  // Opens stream `number` of this attempt: `open` makes it, given its callbacks. `name` tells in
  // statuses which one it was, and must live for ever.
  template <typename OpenFunction>
  std::shared_ptr<ClientStream> Open(size_t number, const char* name, const OpenFunction& open) {
    streams_.push_back(open(Callbacks(number, name)));
    return streams_.back();
  }
  // Ends the attempt, as the end of a stream does. Not from OpenStreams().
  void Fail(const absl::Status& why);
  // The attempt was a success.
  void ResetBackoff() { backoff_ = options_.backoff_initial; }

 private:
  // Runs `action` in the serializer, unless another attempt has begun by then.
  template <typename Action>
  void Post(uint64_t attempt, Action action) {
    serializer_.Run([this, attempt, action = std::move(action)]() mutable {
      if (attempt == attempt_) {
        action();
      }
    });
  }
  StreamCallbacks Callbacks(size_t number, const char* name);
  // There is one timer, as there is always one thing to wait for.
  void After(absl::Duration delay, void (ReconnectingStreams::*action)());
  void Attempt();
  void CheckSilence();
  void CancelStreams();

  Clock* const clock_;
  TimerQueue* const timers_;
  const ReconnectOptions options_;
  ReconnectingStreamsUser* const user_;

  CallbackSerializer serializer_;
  // Used in the serializer only.
  uint64_t attempt_ = 0;
  absl::Time last_heard_;
  int excuses_ = 0;  // Since then.
  absl::Duration backoff_;
  TimerQueue::Id timer_ = 0;
  std::vector<std::shared_ptr<ClientStream>> streams_;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_RECONNECTING_STREAMS_H_
