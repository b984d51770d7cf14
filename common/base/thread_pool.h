// A fixed number of threads that run functions in order of arrival.
#ifndef EXPERTMESH_COMMON_BASE_THREAD_POOL_H_
#define EXPERTMESH_COMMON_BASE_THREAD_POOL_H_

#include <atomic>
#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/ring_queue.h"

namespace expertmesh {

// Thread-safe. The queue is not bounded here: callers bound what they admit. It allocates nothing
// for a task of two pointers, once it has been as long before.
class ThreadPool {
 public:
  using Task = absl::AnyInvocable<void()>;

  // At least one thread.
  explicit ThreadPool(int threads);
  // Runs everything that was queued, tasks queued by tasks included, then joins.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void Run(Task task);

  // Calls body(0, slot) ... body(count - 1, slot), in no order, on this thread and on those of the
  // pool that have nothing else to do. Calls that run at the same time have different slots, below
  // slots(): a place for working memory. Returns when all have returned. Allocates nothing once as
  // many loops were under way before.
  using Body = absl::FunctionRef<void(size_t index, size_t slot)>;
  void ParallelFor(size_t count, Body body);
  // Calls `body` once on every thread of the pool, and waits for that, but not longer than
  // `patience`: threads that have so much else to do may be left out.
  void OnEachThread(std::function<void()> body, absl::Duration patience);

  size_t slots() const { return slots_; }

 private:
  // On its caller's stack.
  struct Loop {
    const Body body;
    const size_t count;
    std::atomic<size_t> next{0};
    std::atomic<size_t> next_slot{0};
    int helpers = 0;  // Under mutex_.
  };

  void Work();
  // Calls the body until no index is left.
  static void RunLoop(Loop& loop);
  // Nothing of it is left to begin.
  void Close(const Loop& loop) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t slots_;
  absl::Mutex mutex_;
  RingQueue<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  std::vector<Loop*> loops_ ABSL_GUARDED_BY(mutex_);  // That may have something left to begin.
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_THREAD_POOL_H_
