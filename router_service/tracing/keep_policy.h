// Which requests spans are made of.
#ifndef EXPERTMESH_ROUTER_SERVICE_TRACING_KEEP_POLICY_H_
#define EXPERTMESH_ROUTER_SERVICE_TRACING_KEEP_POLICY_H_

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "router_service/tracing/trace_record.h"

namespace expertmesh::tracing {

struct KeepOptions {
  // Share of requests without a parent that are sampled; those with one follow it unless
  // `parent_based` is off.
  double ratio = 0.01;
  bool parent_based = true;
  // A request that takes longer is kept, sampled or not. Infinite: none is for that.
  absl::Duration slow = absl::Milliseconds(250);
  // Batches a second that are kept although none of their requests is sampled: when everything
  // fails or is slow, a few tell why. 0: none.
  double most_per_second = 20;
};

// Why a request is kept by what became of it; kNo: it is not.
Keep KeepFor(const KeepOptions& options, absl::StatusCode code, absl::Duration duration,
             bool retried);

// A rate with a burst of a second. Thread-safe.
class KeepLimit {
 public:
  explicit KeepLimit(double per_second) : per_second_(per_second), left_(per_second) {}

  // True when one more is allowed.
  bool Take(absl::Time now);

 private:
  const double per_second_;
  absl::Mutex mutex_;
  double left_ ABSL_GUARDED_BY(mutex_);
  absl::Time since_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace expertmesh::tracing

#endif  // EXPERTMESH_ROUTER_SERVICE_TRACING_KEEP_POLICY_H_
