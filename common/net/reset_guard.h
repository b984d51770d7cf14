// Finds clients that begin calls only to take them back, faster than they can be answered: each
// costs the server as much as a call that is served, and its client nothing.
#ifndef EXPERTMESH_COMMON_NET_RESET_GUARD_H_
#define EXPERTMESH_COMMON_NET_RESET_GUARD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace expertmesh::net {

// Calls of one client that may be taken back unanswered within a window, however few were answered.
inline constexpr uint64_t kMostResets = 1000;
inline constexpr absl::Duration kResetWindow = absl::Seconds(10);

// Thread-safe. Clients are named as ServerContext::peer() does.
class ResetGuard {
 public:
  // `end`: ends the connection of a client; false when it has none. Both must outlive the guard.
  ResetGuard(Clock* clock, std::function<bool(const std::string& peer)> end);

  // A call was taken back before anything was answered. Ends the connection of a client with more
  // than kMostResets such calls, and more of them than answered ones, within kResetWindow.
  void OnReset(const std::string& peer);

  // A call was answered. Costs next to nothing while no client takes many back.
  void OnAnswer(const std::string& peer) {
    if (suspects_.load(std::memory_order_relaxed) > 0) {
      CountAnswer(peer);
    }
  }

 private:
  struct Client {
    uint64_t resets = 0;
    uint64_t answers = 0;  // Since it has been a suspect.
  };

  void CountAnswer(const std::string& peer);

  Clock* const clock_;
  const std::function<bool(const std::string&)> end_;
  std::atomic<int> suspects_{0};
  absl::Mutex mutex_;
  absl::Time window_begin_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, Client> clients_
      ABSL_GUARDED_BY(mutex_);  // Those of this window.
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_RESET_GUARD_H_
