// The part of Queue that waits: for callers, and for host functions.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/cuda_host/calls.h"
#include "tests/cuda_host/queue.h"

namespace expertmesh::cuda_host {
namespace {

// How long nothing must be queued before work is executed for a host function: long beside the
// calls that queue a batch, short beside a test.
constexpr absl::Duration kQuiet = absl::Microseconds(200);

// Polls that find work unfinished, at most.
constexpr uint64_t kMostPolls = 4;

}  // namespace

cudaError_t Queue::Await(const std::shared_ptr<Work>& work) {
  if (work != nullptr) {
    const absl::MutexLock lock(&mutex_);
    RunUntil(work);
  }
  return Calls::Get().broken();
}

cudaError_t Queue::AwaitStream(cudaStream_t stream) {
  if (stream == nullptr) {
    // Also for the streams that the null stream waits for.
    return Await(Add(stream, {.what = "a wait for the null stream"}));
  }
  std::shared_ptr<Work> last;
  {
    const absl::MutexLock lock(&mutex_);
    last = StreamOf(stream).last;
  }
  return Await(last);
}

cudaError_t Queue::AwaitEvent(cudaEvent_t event) {
  std::shared_ptr<Work> record;
  {
    const absl::MutexLock lock(&mutex_);
    record = event->record;
  }
  return Await(record);
}

cudaError_t Queue::AwaitAll() {
  {
    const absl::MutexLock lock(&mutex_);
    // A piece of work that comes after all others, so that one rule chooses among them.
    std::vector<std::shared_ptr<Work>> all(pending_.begin(), pending_.end());
    if (!all.empty()) {
      RunUntil(Append({.what = "a wait for the device"}, std::move(all)));
    }
  }
  return Calls::Get().broken();
}

cudaError_t Queue::Poll(const std::shared_ptr<Work>& work, int* polls) {
  if (work != nullptr && !work->done) {
    if (static_cast<uint64_t>(++*polls) <= random_.Below(kMostPolls)) {
      return cudaErrorNotReady;
    }
    *polls = 0;
    RunUntil(work);
  }
  return Calls::Get().broken();
}

cudaError_t Queue::PollStream(cudaStream_t stream) {
  const absl::MutexLock lock(&mutex_);
  CUstream_st& polled = StreamOf(stream);
  return Poll(polled.last, &polled.polls);
}

cudaError_t Queue::PollEvent(cudaEvent_t event) {
  const absl::MutexLock lock(&mutex_);
  return Poll(event->record, &event->polls);
}

void Queue::SetBackgroundProgress(bool on) {
  const absl::MutexLock lock(&mutex_);
  background_ = on;
  changed_.SignalAll();
}

void Queue::CheckBlocksUpTo(uint64_t blocks) {
  const absl::MutexLock lock(&mutex_);
  checked_blocks_ = blocks;
}

uint64_t Queue::checked_blocks() {
  const absl::MutexLock lock(&mutex_);
  return checked_blocks_;
}

std::shared_ptr<Work> Queue::OldestHostFunction() {
  const auto found =
      std::find_if(pending_.begin(), pending_.end(), [](const std::shared_ptr<Work>& work) {
        return work->is_host_function && !work->running && !work->done;
      });
  return found == pending_.end() ? nullptr : *found;
}

// They end with the process.
void Queue::StartThreads() {
  if (!has_threads_) {
    has_threads_ = true;
    std::thread([this] { RunHostFunctions(); }).detach();
    std::thread([this] { MakeProgress(); }).detach();
  }
}

void Queue::RunHostFunctions() {
  EnterHostFunctions();
  mutex_.Lock();
  for (;;) {
    if (host_functions_.empty()) {
      changed_.Wait(&mutex_);
      continue;
    }
    const std::shared_ptr<Work> work = host_functions_.front();
    host_functions_.pop_front();
    running_host_function_ = true;
    mutex_.Unlock();
    work->run();
    mutex_.Lock();
    running_host_function_ = false;
    Finish(work);
  }
}

void Queue::MakeProgress() {
  mutex_.Lock();
  for (;;) {
    const std::shared_ptr<Work> work = background_ ? OldestHostFunction() : nullptr;
    if (work == nullptr) {
      changed_.Wait(&mutex_);
      continue;
    }
    const absl::Duration left = last_added_ + kQuiet - absl::Now();
    if (left > absl::ZeroDuration()) {
      changed_.WaitWithTimeout(&mutex_, left);
    } else {
      RunUntil(work);
    }
  }
}

void Queue::Reset(uint64_t seed) {
  const absl::MutexLock lock(&mutex_);
  for (const std::shared_ptr<Work>& work : pending_) {
    // The last work of streams and events that may live on as pointers in tests.
    work->done = !work->running;
    // They hold one another.
    work->after.clear();
    work->before.clear();
  }
  std::erase_if(pending_, [](const std::shared_ptr<Work>& work) { return work->done; });
  for (const std::shared_ptr<Work>& work : host_functions_) {
    work->done = true;
  }
  host_functions_.clear();
  ready_.clear();
  changed_.SignalAll();
  while (executing_ || running_host_function_) {
    changed_.Wait(&mutex_);
  }
  pending_.clear();
  ready_.clear();
  streams_.clear();
  captures_.clear();
  null_stream_ = {};
  null_stream_.blocking = true;
  rule_ = static_cast<Rule>(seed % 3);
  random_ = Random(seed);
  work_random_ = Random(seed + 1);
  background_ = true;
  checked_blocks_ = 64;
}

}  // namespace expertmesh::cuda_host
