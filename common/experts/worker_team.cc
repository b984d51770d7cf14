#include "common/experts/worker_team.h"

namespace expertmesh::experts {
namespace {

// Tasks are tens of microseconds: look this often before giving up the core.
constexpr int kSpins = 2000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

void TaskPhase::RunTasks(absl::FunctionRef<void(uint32_t task)> run) {
  while (true) {
    const uint32_t task = next_.fetch_add(1, std::memory_order_relaxed);
    if (task >= tasks_) {
      break;
    }
    run(task);
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == tasks_) {
      done_.notify_all();
    }
  }
  uint32_t done = done_.load(std::memory_order_acquire);
  for (int spin = 0; done < tasks_ && spin < kSpins; ++spin) {
    Pause();
    done = done_.load(std::memory_order_acquire);
  }
  while (done < tasks_) {
    done_.wait(done, std::memory_order_acquire);
    done = done_.load(std::memory_order_acquire);
  }
}

WorkerTeam::WorkerTeam(int threads) {
  for (int worker = 1; worker < threads; ++worker) {
    threads_.emplace_back([this, worker] { Loop(worker); });
  }
}

WorkerTeam::~WorkerTeam() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.SignalAll();
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void WorkerTeam::Run(absl::FunctionRef<void(int worker)> job, bool alone) {
  if (alone || threads_.empty()) {
    job(0);
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    job_ = &job;
    ++generation_;
    wake_.SignalAll();
  }
  job(0);
  absl::MutexLock lock(&mutex_);
  job_ = nullptr;
  while (active_ > 0) {
    idle_.Wait(&mutex_);
  }
}

void WorkerTeam::Loop(int worker) {
  uint64_t seen = 0;
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    if (job_ == nullptr || generation_ == seen) {
      wake_.Wait(&mutex_);
      continue;
    }
    seen = generation_;
    const absl::FunctionRef<void(int)> job = *job_;
    ++active_;
    mutex_.Unlock();
    job(worker);
    mutex_.Lock();
    if (--active_ == 0) {
      idle_.Signal();
    }
  }
}

}  // namespace expertmesh::experts
