#include "common/otlp/retry.h"

#include <algorithm>

#include "common/wire/error_reason.h"

namespace expertmesh::otlp {
namespace {

constexpr absl::string_view kRetryInfo = "type.googleapis.com/google.rpc.RetryInfo";

}  // namespace

std::optional<absl::Duration> RetryDelayOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDataLoss:
      break;
    case absl::StatusCode::kResourceExhausted:
      if (!status.GetPayload(kRetryInfo).has_value()) {
        return std::nullopt;
      }
      break;
    default:
      return std::nullopt;
  }
  return std::clamp(DetailsOf(status).retry_delay, absl::ZeroDuration(), kMostRetryDelay);
}

absl::Duration Backoff::Next() {
  const absl::Duration pause = next_ * absl::Uniform(random_, 0.5, 1.0);
  next_ = std::min(2 * next_, kMost);
  return pause;
}

}  // namespace expertmesh::otlp
