// Calls of one connection that are under way: each ends exactly once, with the node's answer or
// with an error, whatever becomes of the connection.
#ifndef EXPERTMESH_COMMON_TRANSPORT_PENDING_CALLS_H_
#define EXPERTMESH_COMMON_TRANSPORT_PENDING_CALLS_H_

#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/wire/frame.h"

namespace expertmesh {

// Thread-safe. No lock is held while a callback runs.
class PendingCalls {
 public:
  // The answer, encoded.
  using Done = absl::AnyInvocable<void(absl::StatusOr<Frame>)>;
  // Makes what works for a call stop soon; it may be over.
  using Abandon = absl::AnyInvocable<void()>;

  // A call has begun; `done` will run once. Its id.
  uint64_t Add(Done done);
  // Runs `abandon` when the call ends by EndAll or Close; at once if it has ended.
  void OnAbandon(uint64_t id, Abandon abandon);

  // The call has ended so; no effect on one that ended before.
  void End(uint64_t id, absl::StatusOr<Frame> result);
  // Ends all that are under way, with an error.
  void EndAll(const absl::Status& why);
  // The same for good, and waits for callbacks that are running, of which the caller must not be
  // one. A call that is added later must be ended by who adds it.
  void Close(const absl::Status& why);

 private:
  struct Call {
    Done done;
    Abandon abandon;
  };

  void Run(Call call, absl::StatusOr<Frame> result);

  absl::Mutex mutex_;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::flat_hash_map<uint64_t, Call> calls_ ABSL_GUARDED_BY(mutex_);
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
};

// A callback that wants the message, as one that wants its bytes.
template <typename Response>
PendingCalls::Done ParsedFor(absl::AnyInvocable<void(absl::StatusOr<Response>)> done) {
  return [done = std::move(done)](absl::StatusOr<Frame> answer) mutable {
    if (!answer.ok()) {
      done(answer.status());
      return;
    }
    Response response;
    if (response.ParseFromString(answer->Flatten())) {
      done(std::move(response));
    } else {
      done(absl::InternalError("the node's answer is no " + Response::descriptor()->full_name()));
    }
  };
}

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_TRANSPORT_PENDING_CALLS_H_
