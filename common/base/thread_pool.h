// A fixed number of threads that run functions in order of arrival.
#ifndef EXPERTMESH_COMMON_BASE_THREAD_POOL_H_
#define EXPERTMESH_COMMON_BASE_THREAD_POOL_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace expertmesh {

// Thread-safe. The queue is not bounded here: callers bound what they admit.
class ThreadPool {
 public:
  // At least one thread.
  explicit ThreadPool(int threads);
  // Runs everything that was queued, tasks queued by tasks included, then joins.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void Run(std::function<void()> task);

 private:
  void Work();

  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_THREAD_POOL_H_
