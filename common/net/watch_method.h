// One request, many answers: a state that is told when the watcher comes, after every change, and
// again when nothing was said for a while. Watchers have no thread, and all share what is told. A
// watcher that does not read misses the states in between, and costs one frame.
#ifndef EXPERTMESH_COMMON_NET_WATCH_METHOD_H_
#define EXPERTMESH_COMMON_NET_WATCH_METHOD_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/wire/frame.h"

namespace expertmesh::net {

// A state, in two ways of saying it.
struct WatchedState {
  uint64_t version = 0;
  Frame whole;
  // For a watcher to whom a state of this version was told before.
  Frame brief;
};

// Its functions are called from when the server starts until its shutdown is over.
struct WatchMethod {
  // Whole, see MethodOf().
  std::string name;
  // The longest silence that `request` asks for. On a network thread: must not block.
  std::function<absl::StatusOr<absl::Duration>(const Frame& request)> heartbeat;
  // The state now. On the thread of the watches, which it holds up: must be short.
  std::function<WatchedState()> read;
  // Calls `on_change`, which does not block, after every change until its answer is destroyed,
  // which waits for a running call.
  std::function<std::shared_ptr<void>(std::function<void()> on_change)> subscribe;
  // Without a change, a state that was read within this time is told again instead of another.
  absl::Duration fresh = absl::Milliseconds(10);
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_WATCH_METHOD_H_
