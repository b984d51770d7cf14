#include "common/base/timer_queue.h"

#include <utility>

#include "common/base/check.h"

namespace expertmesh {
namespace {

constexpr uint32_t kPlaceBits = 24;

}  // namespace

TimerQueue::TimerQueue(Clock* clock) : clock_(clock), thread_([this] { Run(); }) {}

TimerQueue::~TimerQueue() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

TimerQueue::Id TimerQueue::Schedule(absl::Time when, Callback callback) {
  absl::MutexLock lock(&mutex_);
  if (free_.empty()) {
    EXPERTMESH_CHECK(timers_.size() < size_t{1} << kPlaceBits);
    free_.push_back(static_cast<uint32_t>(timers_.size()));
    timers_.emplace_back();
  }
  const uint32_t place = free_.back();
  free_.pop_back();
  Timer& timer = timers_[place];
  const Id id = next_number_++ << kPlaceBits | place;
  timer.when = when;
  timer.id = id;
  timer.callback = std::move(callback);
  heap_.push_back(place);
  Up(heap_.size() - 1);
  // Later ones find the thread awake in time: no change of threads for each that is cancelled
  // before it is due, as deadlines are.
  if (when < wakes_at_) {
    changed_.SignalAll();
  }
  return id;
}

TimerQueue::Timer* TimerQueue::Find(Id id) {
  const size_t place = id & ((Id{1} << kPlaceBits) - 1);
  return id != 0 && place < timers_.size() && timers_[place].id == id ? &timers_[place] : nullptr;
}

TimerQueue::Callback TimerQueue::Remove(Timer& timer) {
  const size_t at = timer.in_heap;
  const uint32_t place = heap_[at];
  const uint32_t last = heap_.back();
  heap_.pop_back();
  if (last != place) {
    Put(at, last);
    Down(at);
    Up(timers_[last].in_heap);
  }
  timer.id = 0;
  free_.push_back(place);
  return std::exchange(timer.callback, nullptr);
}

bool TimerQueue::Before(uint32_t a, uint32_t b) const {
  const Timer& first = timers_[a];
  const Timer& second = timers_[b];
  return first.when < second.when || (first.when == second.when && first.id < second.id);
}

void TimerQueue::Put(size_t at, uint32_t place) {
  heap_[at] = place;
  timers_[place].in_heap = static_cast<uint32_t>(at);
}

void TimerQueue::Up(size_t at) {
  const uint32_t place = heap_[at];
  for (; at > 0 && Before(place, heap_[(at - 1) / 2]); at = (at - 1) / 2) {
    Put(at, heap_[(at - 1) / 2]);
  }
  Put(at, place);
}

void TimerQueue::Down(size_t at) {
  const uint32_t place = heap_[at];
  for (size_t child = 2 * at + 1; child < heap_.size(); child = 2 * at + 1) {
    if (child + 1 < heap_.size() && Before(heap_[child + 1], heap_[child])) {
      ++child;
    }
    if (!Before(heap_[child], place)) {
      break;
    }
    Put(at, heap_[child]);
    at = child;
  }
  Put(at, place);
}

bool TimerQueue::Cancel(Id id) {
  Callback callback;  // Destroyed without the lock: it may own anything.
  absl::MutexLock lock(&mutex_);
  Timer* const timer = Find(id);
  if (timer == nullptr) {
    return false;
  }
  callback = Remove(*timer);
  return true;
}

void TimerQueue::AwaitEnd(Id id) {
  if (id == 0) {
    return;
  }
  const auto not_running = [this, id]()
                               ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_ != id; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&not_running));
}

void TimerQueue::Run() {
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    if (heap_.empty()) {
      wakes_at_ = absl::InfiniteFuture();
      changed_.Wait(&mutex_);
    } else if (const absl::Time due = timers_[heap_.front()].when; due > clock_->Now()) {
      wakes_at_ = due;
      clock_->WaitUntil(&mutex_, &changed_, due);
    }
    wakes_at_ = absl::InfinitePast();
    if (stopping_ || heap_.empty() || timers_[heap_.front()].when > clock_->Now()) {
      continue;
    }
    Timer& first = timers_[heap_.front()];
    running_ = first.id;
    Callback callback = Remove(first);
    mutex_.Unlock();
    callback();
    callback = nullptr;  // What it holds goes before AwaitEnd returns.
    mutex_.Lock();
    running_ = 0;
  }
}

}  // namespace expertmesh
