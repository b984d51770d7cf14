#include "common/net/blocking_calls.h"

#include <spdlog/spdlog.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/wire/error_reason.h"

namespace expertmesh::net {
namespace {

constexpr absl::Duration kLogInterval = absl::Seconds(10);

}  // namespace

BlockingCalls::BlockingCalls(int threads, size_t most_waiting, Clock* clock)
    : most_waiting_(most_waiting),
      log_limit_(kLogInterval, clock),
      places_(most_waiting),
      pool_(std::make_unique<ThreadPool>(threads)) {}

BlockingCalls::~BlockingCalls() { Stop(absl::CancelledError("the server is gone")); }

void BlockingCalls::Run(const std::string& peer, Call call) {
  absl::Status stopped;
  bool taken = false;
  Waiting displaced;
  {
    absl::MutexLock lock(&mutex_);
    stopped = stopped_;
    if (stopped.ok()) {
      const uint64_t id = next_id_++;
      const PeerPlaces::Outcome outcome = places_.Take(peer, id);
      taken = outcome.taken;
      if (outcome.displaced.has_value()) {
        displaced = std::move(waiting_.extract(*outcome.displaced).mapped());
      }
      if (taken) {
        waiting_[id] = {peer, std::move(call)};
        pool_->Run([this] { RunOldest(); });
      }
    }
  }
  if (displaced.call != nullptr) {
    Refuse(displaced.peer, displaced.call);
  }
  if (!stopped.ok()) {
    call(stopped);
  } else if (!taken) {
    Refuse(peer, call);
  }
}

void BlockingCalls::RunOldest() {
  Waiting next;
  {
    absl::MutexLock lock(&mutex_);
    if (waiting_.empty()) {
      return;
    }
    const auto oldest = waiting_.begin();
    next = std::move(oldest->second);
    places_.Leave(next.peer, oldest->first);
    waiting_.erase(oldest);
  }
  next.call(absl::OkStatus());
}

void BlockingCalls::Refuse(const std::string& peer, const Call& call) {
  const absl::Status why = ErrorOf(
      v1::ERROR_REASON_QUEUE_FULL,
      absl::StrCat(most_waiting_, " calls of methods that block wait already; retry later"));
  if (const std::optional<uint64_t> left_out = log_limit_.Take()) {
    spdlog::warn("a call from {} was refused: {}{}", peer, std::string(why.message()),
                 LeftOutText(*left_out));
  }
  call(why);
}

void BlockingCalls::Stop(const absl::Status& why) {
  std::map<uint64_t, Waiting> dropped;
  std::unique_ptr<ThreadPool> pool;
  {
    absl::MutexLock lock(&mutex_);
    if (!stopped_.ok()) {
      return;
    }
    stopped_ = why;
    dropped.swap(waiting_);
    pool = std::move(pool_);
  }
  for (const auto& [id, waiting] : dropped) {
    waiting.call(why);
  }
  pool.reset();
}

}  // namespace expertmesh::net
