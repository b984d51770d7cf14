#include "common/base/idle_memory.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "common/base/message_bytes.h"
#include "common/base/process.h"

namespace expertmesh {

bool RestDetector::Look(uint64_t moved, uint64_t resident) {
  const uint64_t now = moved - moved_;
  moved_ = moved;
  busiest_ = std::max(now, busiest_ - busiest_ / 64);
  rested_ = now <= std::max(kTrickle, busiest_ / kBusyParts) ? rested_ + 1 : 0;
  // What the process started with may be all in use.
  left_ = std::min(left_, resident);
  return rested_ >= kIntervals && resident >= left_ + kSmall;
}

void RestDetector::GaveBack(uint64_t resident) {
  rested_ = 0;
  left_ = resident;
}

IdleMemory::IdleMemory(std::function<void()> shed, Clock* clock)
    : shed_(std::move(shed)), clock_(clock), thread_([this] { Run(); }) {}

IdleMemory::~IdleMemory() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    stopped_.SignalAll();
  }
  thread_.join();
}

void IdleMemory::Run() {
  constexpr absl::Duration kInterval = absl::Seconds(1);
  absl::Time next = clock_->Now() + kInterval;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      while (!stopping_ && !clock_->WaitUntil(&mutex_, &stopped_, next)) {
      }
      if (stopping_) {
        return;
      }
    }
    next = clock_->Now() + kInterval;
    const uint64_t moved = message_bytes.sent.load(std::memory_order_relaxed) +
                           message_bytes.received.load(std::memory_order_relaxed);
    if (detector_.Look(moved, ResidentBytes())) {
      GiveBack();
    }
  }
}

void IdleMemory::GiveBack() {
  const uint64_t before = ResidentBytes();
  if (shed_) {
    shed_();
  }
  TrimThread();
  TrimSharedMemory();
  malloc_trim(0);
  const uint64_t left = ResidentBytes();
  returned_bytes.fetch_add(before - std::min(before, left), std::memory_order_relaxed);
  detector_.GaveBack(left);
}

}  // namespace expertmesh
