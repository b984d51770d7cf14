// Transport inside one process, for tests of router and node logic: no sockets, no gRPC, clean
// under ThreadSanitizer.
//
// Each connection has three threads: one works for the node (opens the stream, feeds frames to the
// handler), one for the router (calls the observer), and one asks the node to load and unload. So
// nothing ever runs inside of Send.
#ifndef EXPERTMESH_TESTS_SUPPORT_IN_PROCESS_TRANSPORT_H_
#define EXPERTMESH_TESTS_SUPPORT_IN_PROCESS_TRANSPORT_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"
#include "common/transport/transport.h"

namespace expertmesh {

struct InProcessOptions {
  // Largest frame, either way.
  size_t frame_limit_bytes = size_t{8} << 20;
  // Bytes of requests that may be queued per connection.
  size_t window_bytes = size_t{64} << 20;
  // Bytes of answers queued per connection, beyond which its stream is broken.
  size_t answer_bytes = size_t{64} << 20;
};

class InProcessLink;

// The nodes that can be reached. Thread-safe; outlives its connections.
class InProcessNetwork final : public Transport {
 public:
  explicit InProcessNetwork(const InProcessOptions& options = {}) : options_(options) {}

  // Makes `endpoint` reachable; who is waiting for the address connects. Replaces another endpoint
  // of that address as Unregister would. Not owned.
  void Register(const std::string& address, NodeEndpoint* endpoint);

  // The node dies: its streams break. `endpoint` is not used any more when this returns; waits for
  // frames and calls that it is working on. Not from a callback.
  void Unregister(const std::string& address);

  std::unique_ptr<NodeConnection> Connect(std::string address, NodeObserver* observer) override;

 private:
  // Links that exist. Expired ones are dropped on the way.
  std::vector<std::shared_ptr<InProcessLink>> LinksTo(const std::string& address)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Replace(const std::string& address, NodeEndpoint* endpoint);

  const InProcessOptions options_;
  TimerQueue deadlines_{Clock::Real()};
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, NodeEndpoint*> endpoints_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, std::vector<std::weak_ptr<InProcessLink>>> links_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_IN_PROCESS_TRANSPORT_H_
