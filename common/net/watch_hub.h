// Inside of grpc_server: the watchers of one WatchMethod.
#ifndef EXPERTMESH_COMMON_NET_WATCH_HUB_H_
#define EXPERTMESH_COMMON_NET_WATCH_HUB_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/log_limit.h"
#include "common/base/timer_queue.h"
#include "common/net/grpc_server.h"
#include "common/net/peer_places.h"
#include "common/net/watch_method.h"

namespace expertmesh::net {

// One thread for all. States are read there, at most once for each change and for heartbeats that
// come together, and handed to the watchers' streams, each of which takes the newest when it has
// sent what it had (ServerStreamSink::SendLatest). Watchers have places, which peers share
// (peer_places.h); one that has no place, or loses it, ends with QUEUE_FULL. Thread-safe.
class WatchHub {
 public:
  // `method` and `clock` must outlive the hub, and the hub all calls of Method().
  WatchHub(const WatchMethod* method, size_t most_watchers, size_t max_message_bytes, Clock* clock);
  ~WatchHub();
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // To be served.
  RawStreamMethod Method();

  // Nothing of the method is called afterwards; watchers are forgotten.
  void Stop();

  size_t watchers() const;

 private:
  class Handler;
  struct Watch;

  void Add(const Frame& request, const std::string& peer, std::shared_ptr<ServerStreamSink> sink);
  void Forget(uint64_t id);
  void End(const std::shared_ptr<Watch>& watch, const absl::Status& why);
  void Refuse(const std::string& peer, ServerStreamSink& sink);

  // On the timers' thread.
  void TellOne(uint64_t id);
  void TellAll();
  void ReadUnlessFresh();
  void Tell(const std::shared_ptr<Watch>& watch);

  void OnChange();
  // What to send now.
  Frame Take(Watch& watch);
  void RemoveLocked(const Watch& watch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const WatchMethod* const method_;
  const size_t most_watchers_;
  const size_t max_message_bytes_;
  Clock* const clock_;
  LogLimit log_limit_;

  mutable absl::Mutex mutex_;
  // Null once stopped.
  std::unique_ptr<TimerQueue> timers_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::flat_hash_map<uint64_t, std::shared_ptr<Watch>> watches_ ABSL_GUARDED_BY(mutex_);
  PeerPlaces places_ ABSL_GUARDED_BY(mutex_);
  bool changed_ ABSL_GUARDED_BY(mutex_) = true;  // Since the state was read.
  bool tell_all_pending_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time read_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  // The last one that could be sent, and whether that is the newest.
  WatchedState state_ ABSL_GUARDED_BY(mutex_);
  absl::Status too_large_ ABSL_GUARDED_BY(mutex_);

  std::shared_ptr<void> subscription_;  // Last: calls OnChange.
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_WATCH_HUB_H_
