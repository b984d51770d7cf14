// What a server holds for its callers, all calls together: requests that are not answered yet, and
// answers that are not sent yet.
#ifndef EXPERTMESH_COMMON_NET_BUFFER_BUDGET_H_
#define EXPERTMESH_COMMON_NET_BUFFER_BUDGET_H_

#include <atomic>
#include <cstddef>

#include "common/base/message_bytes.h"

namespace expertmesh::net {

// Thread-safe.
class BufferBudget {
 public:
  explicit BufferBudget(size_t limit) : limit_(limit) {}

  void Add(size_t bytes) {
    held_.fetch_add(bytes, std::memory_order_relaxed);
    message_bytes.buffered.fetch_add(bytes, std::memory_order_relaxed);
  }
  void Remove(size_t bytes) {
    held_.fetch_sub(bytes, std::memory_order_relaxed);
    message_bytes.buffered.fetch_sub(bytes, std::memory_order_relaxed);
  }

  size_t limit() const { return limit_; }
  size_t held() const { return held_.load(std::memory_order_relaxed); }
  bool full() const { return held() >= limit_; }

  // Most that one more stream should hold: a quarter of what is left, so that the next ones find
  // room however many there are.
  size_t Share() const {
    const size_t now = held();
    return now >= limit_ ? 0 : (limit_ - now) / 4;
  }

 private:
  const size_t limit_;
  std::atomic<size_t> held_{0};
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_BUFFER_BUDGET_H_
