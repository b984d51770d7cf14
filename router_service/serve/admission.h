// Who may come in: bounds what is accepted and not yet answered, and knows when all is answered.
//
// The bound follows the rate at which tokens are served: no more is held than that serves within
// AdmissionLimits::queue_time, and nothing that it would serve too late for its caller. So what is
// computed is still wanted, however much is asked for; the rest is refused at once.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_ADMISSION_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_ADMISSION_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "router_service/batch/forward_job.h"
#include "router_service/metrics/router_metrics.h"
#include "router_service/serve/service_rate.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::serve {

// Their defaults are those of RouterOptions.
struct AdmissionLimits {
  // Accepted and not yet answered, whatever the rate.
  uint64_t most_tokens = 0;
  // So much is held at any rate: a few full batches.
  uint64_t least_tokens = 0;
  absl::Duration queue_time;
};

// Thread-safe.
class Admission final : public batch::JobObserver {
 public:
  // `tracer` may be null. Pointers must outlive the admission.
  Admission(const AdmissionLimits& limits, metrics::RouterMetrics* metrics, tracing::Tracer* tracer,
            Clock* clock);

  // Accepts a request of `rows` tokens that arrived just now, which is over with OnAnswered. When
  // nothing is held it is accepted in any case that the largest limit allows.
  //   UNAVAILABLE         draining.
  //   RESOURCE_EXHAUSTED  more tokens than may be held, or than are served before `deadline`.
  absl::Status Admit(uint64_t rows, absl::Time arrival, absl::Time deadline);

  // A batch is under way, and over.
  void BatchStarted();
  void BatchFinished();

  // Refuses new requests, and waits until no request and no batch is under way or the time is over.
  // True when none is.
  bool Drain(absl::Duration timeout);

  // JobObserver.
  absl::Time OnAnswer(const batch::ForwardJob& job, absl::StatusCode code) override;
  void OnAnswered() override;

 private:
  // OK when `tokens`, the next ones included, will be served soon enough.
  absl::Status CheckTime(uint64_t tokens, absl::Time now, absl::Time deadline) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const AdmissionLimits limits_;
  metrics::RouterMetrics* const metrics_;
  tracing::Tracer* const tracer_;
  Clock* const clock_;

  absl::Mutex mutex_;
  uint64_t tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  ServiceRate rate_ ABSL_GUARDED_BY(mutex_);
  uint64_t requests_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t batches_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  absl::CondVar idle_;
};

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_ADMISSION_H_
