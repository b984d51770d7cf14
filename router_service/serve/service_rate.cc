#include "router_service/serve/service_rate.h"

#include <algorithm>

namespace expertmesh::serve {
namespace {

// One measurement takes so long; without any answer, longer.
constexpr absl::Duration kWindow = absl::Milliseconds(100);
constexpr absl::Duration kSilence = absl::Seconds(1);
// What is older says nothing: nodes come and go.
constexpr absl::Duration kLately = absl::Seconds(2);
constexpr double kWeight = 0.3;
// A load so many times larger than the measured one is another one.
constexpr uint64_t kSameLoad = 4;

}  // namespace

void ServiceRate::Update(uint64_t held, uint64_t served, absl::Time now) {
  if (begin_ == absl::InfiniteFuture()) {
    if (held > 0) {
      begin_ = now;
      served_ = 0;
      least_held_ = held;
    }
    return;
  }
  served_ += served;
  least_held_ = std::min(least_held_, held);
  if (held == 0) {
    begin_ = absl::InfiniteFuture();
  } else if (now - begin_ >= (served_ > 0 ? kWindow : kSilence)) {
    Measure(now);
    begin_ = now;
    served_ = 0;
    least_held_ = held;
  }
}

void ServiceRate::Measure(absl::Time now) {
  const double rate = static_cast<double>(served_) / absl::ToDoubleSeconds(now - begin_);
  // Nothing at all may be served for a while; never is no estimate.
  rate_ = now - measured_ > kLately ? std::max(rate, 1.0)
                                    : std::max(rate_ + kWeight * (rate - rate_), rate_ / 2);
  load_ = least_held_;
  measured_ = now;
}

std::optional<double> ServiceRate::rate(absl::Time now) const {
  return now - measured_ > kLately ? std::nullopt : std::optional<double>(rate_);
}

std::optional<absl::Duration> ServiceRate::TimeFor(uint64_t tokens, absl::Time now) const {
  if (now - measured_ > kLately || tokens > kSameLoad * load_) {
    return std::nullopt;
  }
  return absl::Seconds(static_cast<double>(tokens) / rate_);
}

}  // namespace expertmesh::serve
