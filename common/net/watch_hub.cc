#include "common/net/watch_hub.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/wire/error_reason.h"

namespace expertmesh::net {
namespace {

constexpr absl::Duration kLogInterval = absl::Seconds(10);

}  // namespace

struct WatchHub::Watch {
  const uint64_t id;
  const std::string peer;
  const absl::Duration heartbeat;
  const std::shared_ptr<ServerStreamSink> sink;
  // Guarded by the hub's mutex.
  TimerQueue::Id timer = 0;
  std::optional<uint64_t> told_version = {};
};

// Takes the one request of a watch.
class WatchHub::Handler final : public StreamHandler {
 public:
  Handler(WatchHub* hub, std::shared_ptr<ServerStreamSink> sink, CallContextPtr context)
      : hub_(hub), sink_(std::move(sink)), context_(std::move(context)) {}

  void OnFrame(Frame frame) override {
    if (std::shared_ptr<ServerStreamSink> sink = std::move(sink_); sink != nullptr) {
      hub_->Add(frame, context_->peer(), std::move(sink));
    }
  }

 private:
  WatchHub* const hub_;
  std::shared_ptr<ServerStreamSink> sink_;
  const CallContextPtr context_;
};

WatchHub::WatchHub(const WatchMethod* method, size_t most_watchers, size_t max_message_bytes,
                   Clock* clock)
    : method_(method),
      most_watchers_(most_watchers),
      max_message_bytes_(max_message_bytes),
      clock_(clock),
      log_limit_(kLogInterval, clock),
      timers_(std::make_unique<TimerQueue>(clock)),
      places_(most_watchers),
      subscription_(method->subscribe([this] { OnChange(); })) {}

WatchHub::~WatchHub() { Stop(); }

RawStreamMethod WatchHub::Method() {
  return {method_->name,
          [this](std::shared_ptr<ServerStreamSink> sink, const CallContextPtr& context) {
            return std::make_unique<Handler>(this, std::move(sink), context);
          }};
}

void WatchHub::Stop() {
  subscription_.reset();
  std::unique_ptr<TimerQueue> timers;
  absl::flat_hash_map<uint64_t, std::shared_ptr<Watch>> forgotten;
  {
    absl::MutexLock lock(&mutex_);
    timers = std::move(timers_);
    forgotten.swap(watches_);
  }
  timers.reset();  // Waits for what runs.
}

size_t WatchHub::watchers() const {
  absl::MutexLock lock(&mutex_);
  return watches_.size();
}

void WatchHub::Add(const Frame& request, const std::string& peer,
                   std::shared_ptr<ServerStreamSink> sink) {
  const absl::StatusOr<absl::Duration> heartbeat = method_->heartbeat(request);
  if (!heartbeat.ok()) {
    sink->Fail(heartbeat.status());
    return;
  }
  uint64_t id = 0;
  bool taken = false;
  std::shared_ptr<Watch> displaced;
  {
    absl::MutexLock lock(&mutex_);
    if (timers_ == nullptr) {
      return;  // The server is shutting down, which has ended the stream.
    }
    id = next_id_++;
    const PeerPlaces::Outcome outcome = places_.Take(peer, id);
    taken = outcome.taken;
    if (outcome.displaced.has_value()) {
      displaced = watches_.at(*outcome.displaced);
      RemoveLocked(*displaced);
    }
    if (taken) {
      watches_.emplace(id, std::make_shared<Watch>(Watch{id, peer, *heartbeat, sink}));
      timers_->Schedule(clock_->Now(), [this, id] { TellOne(id); });
    }
  }
  if (displaced != nullptr) {
    Refuse(displaced->peer, *displaced->sink);
  }
  if (taken) {
    sink->OnEnding([this, id] { Forget(id); });
  } else {
    Refuse(peer, *sink);
  }
}

void WatchHub::Refuse(const std::string& peer, ServerStreamSink& sink) {
  const absl::Status why =
      ErrorOf(v1::ERROR_REASON_QUEUE_FULL,
              absl::StrCat(most_watchers_,
                           " watches are open already, and their peers have no more "
                           "each than yours; end some, or retry later"));
  if (const std::optional<uint64_t> left_out = log_limit_.Take()) {
    spdlog::warn("a watch from {} was refused: {}{}", peer, std::string(why.message()),
                 LeftOutText(*left_out));
  }
  sink.Fail(why);
}

void WatchHub::Forget(uint64_t id) {
  std::shared_ptr<Watch> gone;  // Destroyed after the lock is gone: the sink may end its call.
  absl::MutexLock lock(&mutex_);
  if (const auto found = watches_.find(id); found != watches_.end()) {
    gone = found->second;
    RemoveLocked(*gone);
  }
}

void WatchHub::RemoveLocked(const Watch& watch) {
  if (timers_ != nullptr) {
    timers_->Cancel(watch.timer);
  }
  places_.Leave(watch.peer, watch.id);
  watches_.erase(watch.id);
}

void WatchHub::OnChange() {
  absl::MutexLock lock(&mutex_);
  changed_ = true;
  if (timers_ != nullptr && !tell_all_pending_) {
    tell_all_pending_ = true;
    timers_->Schedule(clock_->Now(), [this] { TellAll(); });
  }
}

void WatchHub::TellOne(uint64_t id) {
  ReadUnlessFresh();
  std::shared_ptr<Watch> watch;
  {
    absl::MutexLock lock(&mutex_);
    if (const auto found = watches_.find(id); found != watches_.end()) {
      watch = found->second;
    }
  }
  if (watch != nullptr) {
    Tell(watch);
  }
}

void WatchHub::TellAll() {
  {
    absl::MutexLock lock(&mutex_);
    tell_all_pending_ = false;
    if (watches_.empty()) {
      return;
    }
  }
  ReadUnlessFresh();
  std::vector<std::shared_ptr<Watch>> watches;
  {
    absl::MutexLock lock(&mutex_);
    watches.reserve(watches_.size());
    for (const auto& [id, watch] : watches_) {
      watches.push_back(watch);
    }
  }
  for (const std::shared_ptr<Watch>& watch : watches) {
    Tell(watch);
  }
}

void WatchHub::ReadUnlessFresh() {
  {
    absl::MutexLock lock(&mutex_);
    if (!changed_ && clock_->Now() - read_at_ < method_->fresh) {
      return;
    }
    changed_ = false;
    read_at_ = clock_->Now();
  }
  WatchedState state = method_->read();
  absl::Status too_large;
  if (const size_t bytes = std::max(state.whole.size(), state.brief.size());
      bytes > max_message_bytes_) {
    too_large =
        ErrorOf(v1::ERROR_REASON_ANSWER_TOO_LARGE,
                absl::StrCat("the state that is watched has ", bytes, " bytes, the limit is ",
                             max_message_bytes_, "; raise it"),
                {{"bytes", absl::StrCat(bytes)}, {"limit", absl::StrCat(max_message_bytes_)}});
  }
  absl::MutexLock lock(&mutex_);
  too_large_ = too_large;
  if (too_large.ok()) {
    std::swap(state_, state);
  }
}

void WatchHub::Tell(const std::shared_ptr<Watch>& watch) {
  absl::Status status;
  {
    absl::MutexLock lock(&mutex_);
    status = too_large_;
  }
  if (status.ok()) {
    watch->sink->SendLatest([this, watch] { return Take(*watch); });
  } else {
    watch->sink->Fail(status);  // And so it is forgotten.
  }
}

Frame WatchHub::Take(Watch& watch) {
  absl::MutexLock lock(&mutex_);
  if (timers_ != nullptr && watches_.contains(watch.id)) {
    timers_->Cancel(watch.timer);
    watch.timer =
        timers_->Schedule(clock_->Now() + watch.heartbeat, [this, id = watch.id] { TellOne(id); });
  }
  const bool told = std::exchange(watch.told_version, state_.version) == state_.version;
  return told ? state_.brief : state_.whole;
}

}  // namespace expertmesh::net
