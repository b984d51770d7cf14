#include "common/net/pulse.h"

namespace expertmesh::net {

Pulse::Pulse(Clock* clock) : clock_(clock), due_(clock->Now() + kPulsePeriod) {}

void Pulse::Beat() {
  const absl::Time now = clock_->Now();
  absl::MutexLock lock(&mutex_);
  if (now - due_ > kPulseSlack) {
    awake_since_ = now;
  }
  due_ = now + kPulsePeriod;
  ++beats_;
}

uint64_t Pulse::beats() const {
  absl::MutexLock lock(&mutex_);
  return beats_;
}

bool Pulse::IsMissing() const {
  const absl::Time now = clock_->Now();
  absl::MutexLock lock(&mutex_);
  return now - due_ > kPulseSlack;
}

absl::Time Pulse::AwakeSince() const {
  const absl::Time now = clock_->Now();
  absl::MutexLock lock(&mutex_);
  return now - due_ > kPulseSlack ? now : awake_since_;
}

}  // namespace expertmesh::net
