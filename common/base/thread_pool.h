// A fixed number of threads that run functions in order of arrival.
#ifndef EXPERTMESH_COMMON_BASE_THREAD_POOL_H_
#define EXPERTMESH_COMMON_BASE_THREAD_POOL_H_

#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
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

 private:
  void Work();

  absl::Mutex mutex_;
  RingQueue<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_THREAD_POOL_H_
