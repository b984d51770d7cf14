// What this process has accepted as a server, and what it would not.
#ifndef EXPERTMESH_COMMON_BASE_CONNECTION_COUNTS_H_
#define EXPERTMESH_COMMON_BASE_CONNECTION_COUNTS_H_

#include <atomic>
#include <cstdint>

namespace expertmesh {

// Counts over all gRPC servers of the process, since it started.
struct ConnectionCounts {
  std::atomic<int64_t> open{0};  // Now, within a second.
  // Closed as soon as they came: few descriptors were left; there were as many as allowed.
  std::atomic<uint64_t> refused_for_descriptors{0};
  std::atomic<uint64_t> refused_for_number{0};
  // Closed because their clients kept beginning calls and taking them back.
  std::atomic<uint64_t> ended_for_resets{0};
  // Closed because a network thread came to nothing else but reading from them.
  std::atomic<uint64_t> ended_for_stalls{0};
  // Times when a waiting connection could not be accepted yet.
  std::atomic<uint64_t> accept_failures{0};
};

inline ConnectionCounts connection_counts;

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_CONNECTION_COUNTS_H_
