#include "router_service/balance/follower.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/peer_text.h"

namespace expertmesh::balance_control {
namespace {

constexpr size_t kMostId = 64;

}  // namespace

absl::Status CheckSuccession(const Decision& last, const internal::v1::Decision& next) {
  if (next.term() > last.term) {
    return absl::OkStatus();
  }
  if (next.term() < last.term) {
    return absl::FailedPreconditionError(
        absl::StrCat("an authority of term ", next.term(), " is over: one of term ", last.term,
                     " was heard since; have this router follow that one, or start the "
                     "authority again"));
  }
  if (next.authority_id() != last.authority_id) {
    return absl::FailedPreconditionError(
        absl::StrCat("two authorities have term ", last.term, ": '", last.authority_id,
                     "', which is followed, and '", PeerText(next.authority_id(), kMostId),
                     "'; stop one of them and start the other again"));
  }
  if (next.epoch() < last.epoch) {
    return absl::FailedPreconditionError(absl::StrCat("epoch ", next.epoch(), " of term ",
                                                      next.term(), " comes after epoch ",
                                                      last.epoch, "; start the authority again"));
  }
  return absl::OkStatus();
}

Follower::Follower(const SteeredModel* model, AuthorityLinks* links, const std::string& address,
                   absl::Duration heartbeat, Clock* clock, std::function<void()> wake)
    : model_(model), address_(address), clock_(clock), wake_(std::move(wake)) {
  internal::v1::FollowRequest request;
  request.set_heartbeat_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(heartbeat)));
  request.set_outline(model->outline);
  link_ = links->Connect(address, request, this);
}

Follower::~Follower() { link_.reset(); }

absl::StatusOr<std::optional<Decision>> Follower::Take(const Decision& last) {
  std::optional<internal::v1::Decision> proto;
  absl::Time since;
  {
    absl::MutexLock lock(&mutex_);
    proto.swap(pending_);
    since = pending_since_;
  }
  if (!proto) {
    return std::nullopt;
  }
  absl::Status status = CheckSuccession(last, *proto);
  absl::StatusOr<Decision> decision = last;
  if (status.ok() && proto->heartbeat()) {
    decision->term = proto->term();
    decision->epoch = proto->epoch();
    status = proto->term() == last.term
                 ? CheckOutline(*model_, proto->outline(), address_)
                 : absl::FailedPreconditionError(absl::StrCat(
                       "term ", proto->term(), " began without saying what is decided"));
  } else if (status.ok()) {
    decision = FromProto(*model_, *proto, address_);
    status = decision.status();
  }
  absl::MutexLock lock(&mutex_);
  if (!status.ok()) {
    problem_ = std::string(status.message());
    return status;
  }
  heard_ = since;
  problem_.clear();
  return *std::move(decision);
}

absl::Time Follower::heard() const {
  absl::MutexLock lock(&mutex_);
  return heard_;
}

std::string Follower::problem() const {
  absl::MutexLock lock(&mutex_);
  return problem_;
}

void Follower::OnDecision(internal::v1::Decision decision) {
  {
    absl::MutexLock lock(&mutex_);
    if (decision.heartbeat() && pending_ && pending_->term() == decision.term()) {
      pending_->set_epoch(decision.epoch());  // What is pending says the rest.
    } else {
      pending_ = std::move(decision);
    }
    pending_since_ = clock_->Now();
  }
  wake_();
}

void Follower::OnDisconnected(const absl::Status& why) {
  {
    absl::MutexLock lock(&mutex_);
    problem_ =
        absl::StrCat("the authority at ", address_, " cannot be heard: ", PeerText(why.message()));
  }
  wake_();
}

}  // namespace expertmesh::balance_control
