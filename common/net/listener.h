// Listens and accepts for a gRPC server, on a thread of its own. gRPC's own listener ends for good
// when it once cannot accept, as when the process has no descriptor left.
#ifndef EXPERTMESH_COMMON_NET_LISTENER_H_
#define EXPERTMESH_COMMON_NET_LISTENER_H_

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/log_limit.h"
#include "common/net/connection_table.h"
#include "common/net/grpc_runtime.h"

namespace expertmesh::net {

struct ListenerOptions {
  // host:port (every address of the host; 0.0.0.0 and [::] both stand for all, of IPv4 and IPv6),
  // or unix:/path, where a socket that is left over is replaced. Port 0: a free one.
  std::string address;
  // Connections open at once; more are closed as they come.
  size_t max_connections = 4096;
  // How long data may stay unacknowledged before the kernel gives a connection up.
  absl::Duration user_timeout = absl::Seconds(5);
  // Whether the threads that serve the connections come round; may be null. A connection that keeps
  // one of them from it for about a second, by never being read to the end, is ended.
  std::function<std::optional<Stall>()> stall = nullptr;
};

// Descriptors that connections of callers must leave free for files, links to nodes and scrapes.
size_t ReservedDescriptors(size_t limit);

// Thread-safe. Connections are counted in connection_counts (common/base/connection_counts.h).
class Listener {
 public:
  // Who serves a connection and owns its descriptor from then on; called by the listener's thread.
  using Accept = std::function<void(int listening, int connection)>;

  // Listens when it returns; connections wait until Start().
  //   UNAVAILABLE       the address cannot be bound; the message says why.
  //   INVALID_ARGUMENT  the address makes no sense.
  static absl::StatusOr<std::unique_ptr<Listener>> Bind(const ListenerOptions& options);

  ~Listener();  // Stop() if it was not called.
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  void Start(Accept accept);

  // Listens no more when it returns, and has called `accept` for the last time. Connections stay,
  // those not accepted are closed. Not from `accept`; one thread only.
  void Stop();

  // Port that is bound; 0 for unix sockets.
  int port() const { return port_; }

  // Ends the connection of a client, as ServerContext::peer() names it. False when there is none,
  // or it has no name of its own (unix sockets).
  bool End(absl::string_view peer) { return connections_.End(peer); }

  // See ConnectionTable::EndIdle().
  void EndIdle(const absl::flat_hash_set<std::string>& busy, absl::Time now,
               absl::Duration allowed) {
    connections_.EndIdle(busy, now, allowed);
  }

 private:
  explicit Listener(const ListenerOptions& options);

  absl::Status BindAddress();
  absl::Status BindUnix(const std::string& path);
  absl::Status BindHost(const std::string& host, const std::string& port);
  void Run();
  // Accepts what waits. False when it could not.
  bool AcceptFrom(int listening);
  void CheckStall();
  // Into the log, now and then.
  void Warn(absl::string_view what, absl::string_view why);
  void Take(int listening, int connection, const sockaddr_storage& peer);

  const ListenerOptions options_;
  int port_ = 0;
  std::string unix_path_;
  std::vector<int> listening_;
  int wake_ = -1;  // An eventfd: Stop() was called.
  std::atomic<bool> stopping_{false};
  Accept accept_;
  ConnectionTable connections_;  // The listener's thread adds, others end.
  std::optional<Stall> stall_;   // When it was first seen, and when that was.
  absl::Time stall_seen_;
  LogLimit warnings_;
  std::thread thread_;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_LISTENER_H_
