#include "common/net/connection_table.h"

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/connection_counts.h"

namespace expertmesh::net {
namespace {

// 0: none is open.
ino_t InodeOf(int descriptor) {
  struct stat status = {};
  return fstat(descriptor, &status) == 0 ? status.st_ino : 0;
}

// Bytes that have been read from a TCP connection, ever.
uint64_t BytesRead(int descriptor) {
  tcp_info info = {};
  socklen_t size = sizeof(info);
  int unread = 0;
  if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
      ioctl(descriptor, FIONREAD, &unread) != 0) {
    return 0;
  }
  return info.tcpi_bytes_received - static_cast<uint64_t>(unread);
}

}  // namespace

std::string PeerName(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    return absl::StrCat("ipv4:", text, ":", ntohs(v4.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
      inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], text, sizeof(text));
      return absl::StrCat("ipv4:", text, ":", ntohs(v6.sin6_port));
    }
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
    // Brackets and percent signs are no characters of a URI. A link-local address has a scope.
    const std::string scope = v6.sin6_scope_id == 0 ? "" : absl::StrCat("%25", v6.sin6_scope_id);
    return absl::StrCat("ipv6:%5B", text, scope, "%5D:", ntohs(v6.sin6_port));
  }
  return "";
}

ConnectionTable::~ConnectionTable() {
  absl::MutexLock lock(&mutex_);
  connection_counts.open -= static_cast<int64_t>(connections_.size());
}

void ConnectionTable::Add(int descriptor, const sockaddr_storage& peer) {
  Connection connection = {InodeOf(descriptor), PeerName(peer)};
  absl::MutexLock lock(&mutex_);
  const bool is_new = connections_.insert_or_assign(descriptor, std::move(connection)).second;
  connection_counts.open += is_new ? 1 : 0;
}

size_t ConnectionTable::size() const {
  absl::MutexLock lock(&mutex_);
  return connections_.size();
}

size_t ConnectionTable::Sweep() {
  absl::MutexLock lock(&mutex_);
  connection_counts.open -= static_cast<int64_t>(absl::erase_if(
      connections_, [](const auto& entry) { return InodeOf(entry.first) != entry.second.inode; }));
  return connections_.size();
}

void ConnectionTable::MarkReads() {
  absl::MutexLock lock(&mutex_);
  for (auto& [descriptor, connection] : connections_) {
    connection.marked = BytesRead(descriptor);
  }
}

std::string ConnectionTable::EndBusiest() {
  absl::MutexLock lock(&mutex_);
  uint64_t sum = 0;
  uint64_t most = 0;
  int busiest = -1;
  for (const auto& [descriptor, connection] : connections_) {
    const uint64_t read = BytesRead(descriptor);
    if (InodeOf(descriptor) == connection.inode && read > connection.marked) {
      sum += read - connection.marked;
      if (read - connection.marked > most) {
        most = read - connection.marked;
        busiest = descriptor;
      }
    }
  }
  if (busiest < 0 || most < sum - sum / 10) {
    return "";
  }
  std::string peer = connections_.at(busiest).peer;
  return EndLocked(busiest) ? peer : "";
}

void ConnectionTable::EndIdle(const absl::flat_hash_set<std::string>& busy, absl::Time now,
                              absl::Duration allowed) {
  const bool nameless_busy =
      absl::c_any_of(busy, [](const std::string& peer) { return absl::StartsWith(peer, "unix"); });
  absl::MutexLock lock(&mutex_);
  std::vector<int> ended;
  for (auto& [descriptor, connection] : connections_) {
    if (connection.peer.empty() ? nameless_busy : busy.contains(connection.peer)) {
      connection.idle_since = absl::InfiniteFuture();
      continue;
    }
    connection.idle_since = std::min(connection.idle_since, now);
    if (now - connection.idle_since >= allowed && InodeOf(descriptor) == connection.inode) {
      ended.push_back(descriptor);
    }
  }
  for (const int descriptor : ended) {
    EndLocked(descriptor);
  }
}

bool ConnectionTable::EndLocked(int descriptor) {
  const bool ended = shutdown(descriptor, SHUT_RDWR) == 0;
  // What is left of it is for its owner to close.
  connection_counts.open -= static_cast<int64_t>(connections_.erase(descriptor));
  return ended;
}

bool ConnectionTable::End(absl::string_view peer) {
  if (peer.empty()) {
    return false;
  }
  absl::MutexLock lock(&mutex_);
  for (const auto& [descriptor, connection] : connections_) {
    if (connection.peer == peer && InodeOf(descriptor) == connection.inode) {
      return EndLocked(descriptor);
    }
  }
  return false;
}

}  // namespace expertmesh::net
