#include "common/base/thread_pool.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace expertmesh {

ThreadPool::ThreadPool(int threads) : slots_(1 + static_cast<size_t>(std::max(1, threads))) {
  for (size_t i = 1; i < slots_; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
}

ThreadPool::~ThreadPool() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void ThreadPool::Run(Task task) {
  absl::MutexLock lock(&mutex_);
  tasks_.push_back(std::move(task));
}

void ThreadPool::ParallelFor(size_t count, Body body) {
  Loop loop{body, count};
  if (count < 2) {
    return RunLoop(loop);
  }
  {
    absl::MutexLock lock(&mutex_);
    loops_.push_back(&loop);
  }
  RunLoop(loop);
  const auto alone = [&loop] { return loop.helpers == 0; };
  absl::MutexLock lock(&mutex_);
  Close(loop);
  mutex_.Await(absl::Condition(&alone));
}

void ThreadPool::OnEachThread(std::function<void()> body, absl::Duration patience) {
  struct Round {
    // So a thread that has done its part leaves the others theirs.
    void Arrive(absl::Duration patience) {
      absl::MutexLock lock(&mutex);
      --missing;
      const auto all = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return missing == 0; };
      mutex.AwaitWithTimeout(absl::Condition(&all), patience);
    }
    absl::Mutex mutex;
    size_t missing ABSL_GUARDED_BY(mutex);
  };
  const auto round = std::make_shared<Round>();
  {
    absl::MutexLock lock(&round->mutex);
    round->missing = slots_;
  }
  for (size_t i = 0; i < threads_.size(); ++i) {
    Run([round, body, patience] {
      body();
      round->Arrive(patience);
    });
  }
  round->Arrive(patience);
}

void ThreadPool::RunLoop(Loop& loop) {
  // A thread takes part in a loop once at most, so there are enough.
  const size_t slot = loop.next_slot.fetch_add(1, std::memory_order_relaxed);
  for (size_t i = loop.next++; i < loop.count; i = loop.next++) {
    loop.body(i, slot);
  }
}

void ThreadPool::Close(const Loop& loop) {
  loops_.erase(std::remove(loops_.begin(), loops_.end(), &loop), loops_.end());
}

void ThreadPool::Work() {
  const auto awake = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !tasks_.empty() || !loops_.empty();
  };
  while (true) {
    Task task;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&awake));
      if (tasks_.empty() && loops_.empty()) {
        return;
      }
      if (tasks_.empty()) {
        Loop& loop = *loops_.front();
        ++loop.helpers;
        mutex_.Unlock();
        RunLoop(loop);
        mutex_.Lock();
        Close(loop);
        --loop.helpers;
        continue;
      }
      task = tasks_.Pop();
    }
    task();
  }
}

}  // namespace expertmesh
