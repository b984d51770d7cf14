// Says when central management stops being alive, and when it is again.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_BALANCE_WATCH_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_BALANCE_WATCH_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <tuple>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"
#include "router_service/balance/controller.h"

namespace expertmesh::serve {

// Looks after every tick of the controller, and every kInterval on a thread of its own: a
// controller that hangs does not say so itself. Thread-safe.
class BalanceWatch {
 public:
  static constexpr absl::Duration kInterval = absl::Seconds(1);

  // Both must outlive it.
  BalanceWatch(balance_control::Controller* controller, Clock* clock);
  ~BalanceWatch();
  BalanceWatch(const BalanceWatch&) = delete;
  BalanceWatch& operator=(const BalanceWatch&) = delete;

  // Calls `on_change` now, and whenever it is alive no longer or again, or who decides has changed,
  // until the answer is destroyed, which waits for a running call. From any thread, one at a time;
  // must not block.
  std::shared_ptr<void> Subscribe(std::function<void()> on_change);

 private:
  // What is told when it changes: alive, role, authority, term. Not the reason, which counts time.
  using State = std::tuple<bool, v1::BalanceRole, std::string, uint64_t>;

  State Read() const;
  void Look();
  void LookAgain();

  balance_control::Controller* const controller_;
  Clock* const clock_;

  absl::Mutex mutex_;
  State told_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_subscriber_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::flat_hash_map<uint64_t, std::function<void()>> subscribers_ ABSL_GUARDED_BY(mutex_);

  // Last: these call Look.
  std::shared_ptr<void> ticks_;
  TimerQueue timers_;
};

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_BALANCE_WATCH_H_
