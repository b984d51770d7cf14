#include "common/net/reset_guard.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "common/base/connection_counts.h"

namespace expertmesh::net {
namespace {

// From so many on a client's answers are counted.
constexpr uint64_t kSuspicious = kMostResets / 10;
// Clients of one window; beyond it begins the next.
constexpr size_t kMostClients = 16384;

}  // namespace

ResetGuard::ResetGuard(Clock* clock, std::function<bool(const std::string&)> end)
    : clock_(clock), end_(std::move(end)), window_begin_(clock->Now()) {}

void ResetGuard::OnReset(const std::string& peer) {
  const absl::Time now = clock_->Now();
  {
    absl::MutexLock lock(&mutex_);
    if (now - window_begin_ >= kResetWindow || clients_.size() >= kMostClients) {
      clients_.clear();
      suspects_ = 0;
      window_begin_ = now;
    }
    Client& client = clients_[peer];
    ++client.resets;
    suspects_ += client.resets == kSuspicious ? 1 : 0;
    if (client.resets <= kMostResets || client.resets <= client.answers) {
      return;
    }
    clients_.erase(peer);
    --suspects_;
  }
  if (end_(peer)) {
    ++connection_counts.ended_for_resets;
    spdlog::warn(
        "{} took back more than {} calls within {}, and more than were answered: its "
        "connection is ended",
        peer, kMostResets, absl::FormatDuration(kResetWindow));
  }
}

void ResetGuard::CountAnswer(const std::string& peer) {
  absl::MutexLock lock(&mutex_);
  const auto client = clients_.find(peer);
  if (client != clients_.end() && client->second.resets >= kSuspicious) {
    ++client->second.answers;
  }
}

}  // namespace expertmesh::net
