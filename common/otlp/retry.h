// Inside of otlp_exporter: what is sent again, and when.
#ifndef EXPERTMESH_COMMON_OTLP_RETRY_H_
#define EXPERTMESH_COMMON_OTLP_RETRY_H_

#include <optional>

#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

namespace expertmesh::otlp {

// The longest that a collector may ask to be left alone.
inline constexpr absl::Duration kMostRetryDelay = absl::Seconds(30);

// Whether the protocol lets a request that ended with `status`, an error, be sent again; then
// after how long at the least: what the collector asks for, up to kMostRetryDelay, or zero.
std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

// Pauses that grow while there is no success, the more so that not all processes of a mesh come
// back to a collector at one time. Not thread-safe.
class Backoff {
 public:
  static constexpr absl::Duration kFirst = absl::Milliseconds(500);
  static constexpr absl::Duration kMost = absl::Seconds(5);

  // The pause after one more failure: from half of kFirst to kFirst, twice as much after each, and
  // at most kMost.
  absl::Duration Next();
  void Reset() { next_ = kFirst; }

 private:
  absl::Duration next_ = kFirst;
  absl::InsecureBitGen random_;
};

}  // namespace expertmesh::otlp

#endif  // EXPERTMESH_COMMON_OTLP_RETRY_H_
