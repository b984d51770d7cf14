#include "tests/cuda_host/queue.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/cuda_host/calls.h"
#include "tests/cuda_host/die.h"
#include "tests/cuda_host/memory.h"

namespace expertmesh::cuda_host {
namespace {

// All that must be done before `work` can, and itself.
std::set<const Work*> AwaitedFor(const Work& work) {
  std::set<const Work*> found = {&work};
  std::vector<const Work*> open = {&work};
  while (!open.empty()) {
    const Work* next = open.back();
    open.pop_back();
    for (const std::shared_ptr<Work>& before : next->after) {
      if (!before->done && found.insert(before.get()).second) {
        open.push_back(before.get());
      }
    }
  }
  return found;
}

}  // namespace

Queue& Queue::Get() {
  static auto* const queue = new Queue();
  return *queue;
}

Queue::Queue() { null_stream_.blocking = true; }

CUstream_st& Queue::StreamOf(cudaStream_t stream) {
  return stream == nullptr ? null_stream_ : *stream;
}

std::vector<std::shared_ptr<Work>> Queue::EndsOf(cudaStream_t stream) {
  std::vector<std::shared_ptr<Work>> ends;
  const auto add = [&ends](const CUstream_st& one) {
    if (one.last != nullptr) {
      ends.push_back(one.last);
    }
  };
  add(StreamOf(stream));
  if (stream == nullptr) {
    for (cudaStream_t other : streams_) {
      if (other->blocking) {
        add(*other);
      }
    }
  } else if (stream->blocking) {
    add(null_stream_);
  }
  return ends;
}

std::shared_ptr<Work> Queue::Append(Work work, std::vector<std::shared_ptr<Work>> after) {
  auto added = std::make_shared<Work>(std::move(work));
  for (std::shared_ptr<Work>& earlier : after) {
    if (!earlier->done) {
      earlier->before.push_back(added);
      added->after.push_back(std::move(earlier));
    }
  }
  added->missing = added->after.size();
  if (added->missing == 0) {
    ready_.push_back(added);
  }
  pending_.push_back(added);
  last_added_ = absl::Now();
  return added;
}

std::shared_ptr<Work> Queue::AddLocked(cudaStream_t stream, Work work,
                                       std::vector<std::shared_ptr<Work>> also) {
  CUstream_st& to = StreamOf(stream);
  if (stream != nullptr && std::find(streams_.begin(), streams_.end(), stream) == streams_.end()) {
    streams_.push_back(stream);
  }
  std::vector<std::shared_ptr<Work>> after = EndsOf(stream);
  after.insert(after.end(), also.begin(), also.end());
  to.last = Append(std::move(work), std::move(after));
  changed_.SignalAll();
  return to.last;
}

std::shared_ptr<Work> Queue::Add(cudaStream_t stream, Work work) {
  const absl::MutexLock lock(&mutex_);
  CUstream_st& to = StreamOf(stream);
  if (to.capture != nullptr) {
    AddToCapture(stream, *to.capture, std::move(work));
    return nullptr;
  }
  if (work.is_host_function) {
    StartThreads();
  }
  return AddLocked(stream, std::move(work));
}

std::shared_ptr<Work> Queue::Choose(const std::set<const Work*>& awaited) {
  std::vector<std::shared_ptr<Work>> wanted;
  std::vector<std::shared_ptr<Work>> others;
  for (const std::shared_ptr<Work>& work : ready_) {
    (awaited.count(work.get()) > 0 ? wanted : others).push_back(work);
  }
  switch (rule_) {
    case Rule::kOnlyAwaited:
      others.clear();
      break;
    case Rule::kOthersFirst:
      if (!others.empty()) {
        wanted.clear();
      }
      break;
    case Rule::kAny:
      break;
  }
  wanted.insert(wanted.end(), others.begin(), others.end());
  return wanted.empty() ? nullptr : wanted[random_.Below(wanted.size())];
}

void Queue::Finish(const std::shared_ptr<Work>& work) {
  work->done = true;
  work->running = false;
  work->run = nullptr;
  work->after.clear();
  for (std::shared_ptr<Work>& later : std::exchange(work->before, {})) {
    if (--later->missing == 0) {
      ready_.push_back(std::move(later));
    }
  }
  while (!pending_.empty() && pending_.front()->done) {
    pending_.pop_front();
  }
  changed_.SignalAll();
}

void Queue::Execute(const std::shared_ptr<Work>& work) {
  work->running = true;
  std::erase(ready_, work);
  if (work->failure != cudaSuccess) {
    Calls::Get().Break(work->failure);
  }
  // A broken device executes nothing, and calls no host function.
  if (Calls::Get().broken() != cudaSuccess || work->run == nullptr) {
    Finish(work);
    return;
  }
  if (work->is_host_function) {
    host_functions_.push_back(work);
    changed_.SignalAll();
    return;
  }
  mutex_.Unlock();
  Memory::Get().BeginAccess(work->what);
  work->run();
  Memory::Get().EndWork();
  mutex_.Lock();
  Finish(work);
}

void Queue::StopExecuting() {
  mutex_.Unlock();
  Memory::Get().EndAccess();
  mutex_.Lock();
  executing_ = false;
  changed_.SignalAll();
}

void Queue::RunUntil(const std::shared_ptr<Work>& target) {
  const std::set<const Work*> awaited = AwaitedFor(*target);
  std::shared_ptr<Work> latest;  // Until EndAccess, which may name it.
  while (!target->done) {
    if (executing_ && latest == nullptr) {
      changed_.Wait(&mutex_);  // Another thread executes.
      continue;
    }
    const std::shared_ptr<Work> next = Choose(awaited);
    if (next == nullptr) {
      // Nothing but a host function that runs, or what another thread executes.
      if (latest != nullptr) {
        StopExecuting();
        latest = nullptr;
      } else {
        changed_.Wait(&mutex_);
      }
      continue;
    }
    if (latest == nullptr) {
      executing_ = true;
      Memory::Get().BeginAccess(next->what);
    }
    latest = next;
    Execute(next);
  }
  if (latest != nullptr) {
    StopExecuting();
  }
}

cudaError_t Queue::Record(cudaEvent_t event, cudaStream_t stream) {
  const absl::MutexLock lock(&mutex_);
  CUstream_st& from = StreamOf(stream);
  event->polls = 0;
  event->capture = from.capture;
  if (from.capture != nullptr) {
    event->nodes = from.capture->ends[stream];
    event->record = nullptr;
  } else {
    event->record = AddLocked(stream, {.what = "the record of an event"});
  }
  return cudaSuccess;
}

cudaError_t Queue::WaitEvent(cudaStream_t stream, cudaEvent_t event) {
  const absl::MutexLock lock(&mutex_);
  CUstream_st& to = StreamOf(stream);
  if (event->capture != nullptr) {
    Capture& capture = *event->capture;
    if (capture.ended) {
      return cudaErrorCapturedEvent;
    }
    if (to.capture != nullptr && to.capture != event->capture) {
      capture.valid = to.capture->valid = false;
      return cudaErrorStreamCaptureIsolation;
    }
    to.capture = event->capture;
    std::vector<size_t>& ends = capture.ends[stream];
    ends.insert(ends.end(), event->nodes.begin(), event->nodes.end());
    return cudaSuccess;
  }
  if (to.capture != nullptr) {
    to.capture->valid = false;
    return cudaErrorStreamCaptureIsolation;
  }
  if (event->record != nullptr) {
    // Ready when the event is, and what is added to the stream later comes after it.
    AddLocked(stream, {.what = "a wait for an event"}, {event->record});
  }
  return cudaSuccess;
}

void Queue::CheckUnused(const char* data, size_t bytes) {
  const absl::MutexLock lock(&mutex_);
  for (const std::shared_ptr<Work>& work : pending_) {
    for (const auto& [begin, size] : work->pinned) {
      if (!work->done && begin < data + bytes && data < begin + size) {
        Die(absl::StrCat("pinned memory is freed while queued work uses it: ", work->what));
      }
    }
  }
}

void Queue::ForgetStream(cudaStream_t stream) {
  const absl::MutexLock lock(&mutex_);
  std::erase(streams_, stream);
}

}  // namespace expertmesh::cuda_host
