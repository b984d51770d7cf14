// How much this process has sent and received over the network.
#ifndef EXPERTMESH_COMMON_BASE_MESSAGE_BYTES_H_
#define EXPERTMESH_COMMON_BASE_MESSAGE_BYTES_H_

#include <atomic>
#include <cstdint>

namespace expertmesh {

// Bytes of all frames since the process started; what HTTP/2 and TCP add is not in them.
struct MessageBytes {
  std::atomic<uint64_t> sent{0};
  std::atomic<uint64_t> received{0};
};

inline MessageBytes message_bytes;

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_MESSAGE_BYTES_H_
