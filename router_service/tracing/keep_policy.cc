#include "router_service/tracing/keep_policy.h"

#include <algorithm>

namespace expertmesh::tracing {

absl::string_view NameOf(Keep keep) {
  switch (keep) {
    case Keep::kNo:
      return "no";
    case Keep::kSampled:
      return "sampled";
    case Keep::kSlow:
      return "slow";
    case Keep::kFailed:
      return "failed";
    case Keep::kRetried:
      return "retried";
    case Keep::kOfBatch:
      return "batch";
  }
  return "no";
}

Keep KeepFor(const KeepOptions& options, absl::StatusCode code, absl::Duration duration,
             bool retried) {
  if (code != absl::StatusCode::kOk) {
    return Keep::kFailed;
  }
  if (retried) {
    return Keep::kRetried;
  }
  return duration > options.slow ? Keep::kSlow : Keep::kNo;
}

bool KeepLimit::Take(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  if (now > since_) {
    const double seconds = std::min(absl::ToDoubleSeconds(now - since_), 1.0);
    left_ = std::min(left_ + seconds * per_second_, per_second_);
    since_ = now;
  }
  if (left_ < 1) {
    return false;
  }
  left_ -= 1;
  return true;
}

}  // namespace expertmesh::tracing
