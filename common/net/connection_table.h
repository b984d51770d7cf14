// Which connections of callers are open. gRPC owns their descriptors and does not tell when it
// closes one, so they are known by descriptor and inode: a descriptor that is closed, or stands for
// something else by now, has another inode or none.
#ifndef EXPERTMESH_COMMON_NET_CONNECTION_TABLE_H_
#define EXPERTMESH_COMMON_NET_CONNECTION_TABLE_H_

#include <sys/socket.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace expertmesh::net {

// An address as grpc::ServerContext::peer() writes it; empty for one without a name of its own.
std::string PeerName(const sockaddr_storage& address);

// Thread-safe.
class ConnectionTable {
 public:
  ~ConnectionTable();

  // An open descriptor, in place of what had its number before.
  void Add(int descriptor, const sockaddr_storage& peer);

  // Those added and not known to be closed. Sweep() first asks the kernel about each.
  size_t size() const;
  size_t Sweep();

  // Shuts the connection of `peer` down; its owner then closes it. False when there is none.
  bool End(absl::string_view peer);

  // One look of several, at time `now`, when the peers `busy` have calls under way: ends the
  // connections that had none in this look and all before it for `allowed` or longer. Those of unix
  // sockets have no names of their own: one that is busy stands for all.
  void EndIdle(const absl::flat_hash_set<std::string>& busy, absl::Time now,
               absl::Duration allowed);

  // Remembers how much has been read from each connection.
  void MarkReads();
  // Ends the connection from which at least nine tenths of all bytes were read since MarkReads(),
  // and returns its peer; empty when there is none.
  std::string EndBusiest();

 private:
  struct Connection {
    ino_t inode;
    std::string peer;
    uint64_t marked = 0;
    absl::Time idle_since = absl::InfiniteFuture();
  };

  bool EndLocked(int descriptor) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<int, Connection> connections_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_CONNECTION_TABLE_H_
