// Threads for the methods of a server that may block.
#ifndef EXPERTMESH_COMMON_NET_BLOCKING_CALLS_H_
#define EXPERTMESH_COMMON_NET_BLOCKING_CALLS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/log_limit.h"
#include "common/base/thread_pool.h"
#include "common/net/peer_places.h"

namespace expertmesh::net {

// Runs calls in order of arrival on a few threads. Those that wait have places, which peers share
// (peer_places.h). Thread-safe.
class BlockingCalls {
 public:
  // With OK: to be done. Otherwise why it is not, and then it must not block. Called once.
  using Call = std::function<void(const absl::Status& go)>;

  // At most `most_waiting` calls wait. `clock` is that of the log.
  BlockingCalls(int threads, size_t most_waiting, Clock* clock);
  // Stop() if that was not called.
  ~BlockingCalls();
  BlockingCalls(const BlockingCalls&) = delete;
  BlockingCalls& operator=(const BlockingCalls&) = delete;

  // `call` may be told at once that there is no place (QUEUE_FULL), or later, when another peer's
  // took its place.
  void Run(const std::string& peer, Call call);

  // Waits for those that run; those that wait are told `why`, as are all later ones.
  void Stop(const absl::Status& why);

 private:
  struct Waiting {
    std::string peer;
    Call call;
  };

  void RunOldest();
  void Refuse(const std::string& peer, const Call& call);

  const size_t most_waiting_;
  LogLimit log_limit_;
  absl::Mutex mutex_;
  absl::Status stopped_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  // In order of arrival. The pool has a task for each, and for those that lost their places.
  std::map<uint64_t, Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  PeerPlaces places_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<ThreadPool> pool_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_BLOCKING_CALLS_H_
