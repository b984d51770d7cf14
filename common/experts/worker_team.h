// Persistent threads that work on one job at a time, together with the thread that brings it.
#ifndef EXPERTMESH_COMMON_EXPERTS_WORKER_TEAM_H_
#define EXPERTMESH_COMMON_EXPERTS_WORKER_TEAM_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace expertmesh::experts {

// A run of numbered tasks that threads take one after the other. A thread that comes late finds
// nothing left to do and delays no other.
class TaskPhase {
 public:
  // Before the job starts.
  void Reset(uint32_t tasks) {
    tasks_ = tasks;
    next_.store(0, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
  }

  // Runs tasks as long as there are any, then waits for those that other threads took: what all
  // tasks wrote is visible afterwards.
  void RunTasks(absl::FunctionRef<void(uint32_t task)> run);

 private:
  uint32_t tasks_ = 0;
  alignas(64) std::atomic<uint32_t> next_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
};

// Run() must not be called by two threads at once.
class WorkerTeam {
 public:
  // `threads` counts the caller of Run(); 1 starts none.
  explicit WorkerTeam(int threads);
  ~WorkerTeam();
  WorkerTeam(const WorkerTeam&) = delete;
  WorkerTeam& operator=(const WorkerTeam&) = delete;

  int threads() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls job(0) here and job(i) on worker i, for all workers that wake up before job(0) returns;
  // returns when all that began have returned. With `alone` no worker is woken.
  void Run(absl::FunctionRef<void(int worker)> job, bool alone);

 private:
  void Loop(int worker);

  absl::Mutex mutex_;
  absl::CondVar wake_;
  absl::CondVar idle_;
  const absl::FunctionRef<void(int)>* job_ ABSL_GUARDED_BY(mutex_) = nullptr;
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;
  int active_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_WORKER_TEAM_H_
