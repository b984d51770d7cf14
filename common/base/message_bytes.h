// How much this process has sent and received over the network, and copied on the way.
#ifndef EXPERTMESH_COMMON_BASE_MESSAGE_BYTES_H_
#define EXPERTMESH_COMMON_BASE_MESSAGE_BYTES_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace expertmesh {

// Bytes of all frames since the process started; what HTTP/2 and TCP add is not in them.
struct MessageBytes {
  std::atomic<uint64_t> sent{0};
  std::atomic<uint64_t> received{0};
  // Held now for the callers of the process's servers: see net::BufferBudget.
  std::atomic<size_t> buffered{0};
};

inline MessageBytes message_bytes;

// Bytes of tensors, in the type they have on the wire, copied or converted between messages and the
// matrices that are computed with, since the process started. Every tensor byte of a message counts
// at most once, so this stays below sent plus received.
inline std::atomic<uint64_t> copied_tensor_bytes{0};

inline void CountCopiedTensorBytes(uint64_t bytes) {
  copied_tensor_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_MESSAGE_BYTES_H_
