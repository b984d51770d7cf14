#include "common/net/reconnecting_streams.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace expertmesh::net {
namespace {

// So often in a row may pauses of this process excuse a peer's silence: a process that is paused
// again and again must still notice in the end that a peer is gone.
constexpr int kMostExcuses = 5;

ReconnectOptions WithAwakeSince(ReconnectOptions options) {
  if (options.awake_since == nullptr) {
    options.awake_since = [] { return absl::InfinitePast(); };
  }
  return options;
}

}  // namespace

ReconnectingStreams::ReconnectingStreams(Clock* clock, TimerQueue* timers, ReconnectOptions options,
                                         ReconnectingStreamsUser* user)
    : clock_(clock),
      timers_(timers),
      options_(WithAwakeSince(std::move(options))),
      user_(user),
      backoff_(options_.backoff_initial) {}

void ReconnectingStreams::Start() {
  serializer_.Run([this] { After(absl::ZeroDuration(), &ReconnectingStreams::Attempt); });
}

void ReconnectingStreams::Close() {
  serializer_.Close();
  // Nothing runs in the serializer any more: its members are ours now.
  timers_->Cancel(timer_);
  CancelStreams();
}

void ReconnectingStreams::After(absl::Duration delay, void (ReconnectingStreams::*action)()) {
  timer_ = timers_->Schedule(
      clock_->Now() + delay, [weak = weak_from_this(), attempt = attempt_, action] {
        if (const std::shared_ptr<ReconnectingStreams> self = weak.lock()) {
          self->Post(attempt, [self = self.get(), action] { (self->*action)(); });
        }
      });
}

void ReconnectingStreams::Attempt() {
  ++attempt_;
  last_heard_ = clock_->Now();
  excuses_ = 0;
  if (user_->OpenStreams()) {
    After(options_.silence_timeout, &ReconnectingStreams::CheckSilence);
  }
}

StreamCallbacks ReconnectingStreams::Callbacks(size_t number, const char* name) {
  StreamCallbacks callbacks;
  const std::shared_ptr<ReconnectingStreams> self = shared_from_this();
  const uint64_t attempt = attempt_;
  callbacks.on_open = [self, attempt, number] {
    self->Post(attempt, [self = self.get(), number] { self->user_->OnOpen(number); });
  };
  callbacks.on_frame = [self, attempt, number](Frame frame) {
    self->Post(attempt, [self = self.get(), number, frame = std::move(frame)]() mutable {
      self->last_heard_ = self->clock_->Now();
      self->excuses_ = 0;
      self->user_->OnFrame(number, std::move(frame));
    });
  };
  callbacks.on_closed = [self, attempt, name](const absl::Status& status) {
    // A peer that dies during a call may leave OK or CANCELLED. This side never cancels streams of
    // an attempt that is not over.
    const absl::Status why = status.ok() || absl::IsCancelled(status)
                                 ? absl::UnavailableError(absl::StrCat("it ended ", name))
                                 : status;
    self->Post(attempt, [self = self.get(), why] { self->Fail(why); });
  };
  return callbacks;
}

void ReconnectingStreams::CheckSilence() {
  const absl::Time now = clock_->Now();
  const absl::Duration silence = now - last_heard_;
  const absl::Time awake_since = options_.awake_since();
  const absl::Duration counted = now - std::max(last_heard_, awake_since);
  // The end of a pause uses up an excuse, its length none.
  const bool excused =
      silence < options_.silence_timeout || awake_since >= now || ++excuses_ <= kMostExcuses;
  if (counted < options_.silence_timeout && excused) {
    After(options_.silence_timeout - counted, &ReconnectingStreams::CheckSilence);
    return;
  }
  Fail(absl::UnavailableError(absl::StrCat("nothing heard for ", absl::FormatDuration(silence))));
}

void ReconnectingStreams::Fail(const absl::Status& why) {
  ++attempt_;  // Nothing more of this attempt.
  timers_->Cancel(timer_);
  CancelStreams();
  After(backoff_, &ReconnectingStreams::Attempt);
  backoff_ = std::min(backoff_ * 2, options_.backoff_max);
  user_->OnDisconnected(why);
}

void ReconnectingStreams::CancelStreams() {
  for (const std::shared_ptr<ClientStream>& stream : std::exchange(streams_, {})) {
    stream->Cancel();
  }
}

}  // namespace expertmesh::net
