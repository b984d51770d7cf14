// Threads for the methods of a server that may block.
#ifndef EXPERTMESH_COMMON_NET_BLOCKING_CALLS_H_
#define EXPERTMESH_COMMON_NET_BLOCKING_CALLS_H_

#include <functional>
#include <memory>

namespace expertmesh::net {

// Thread-safe. Each call has a thread of its own: such calls are few and may last for hours.
class BlockingCalls {
 public:
  explicit BlockingCalls(int most);
  // Waits for all calls.
  ~BlockingCalls();
  BlockingCalls(const BlockingCalls&) = delete;
  BlockingCalls& operator=(const BlockingCalls&) = delete;

  // False when `most` are running: `call` was not taken.
  [[nodiscard]] bool Run(std::function<void()> call);
  void AwaitNone();

 private:
  struct State;

  const int most_;
  // Shared with the threads, whose last step is to leave it.
  const std::shared_ptr<State> state_;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_BLOCKING_CALLS_H_
