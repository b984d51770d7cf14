// Who may come in: bounds what is accepted and not yet answered, and knows when all is answered.
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

namespace expertmesh::serve {

// Thread-safe.
class Admission final : public batch::JobObserver {
 public:
  // `max_tokens`: accepted and not yet answered. Pointers must outlive the admission.
  Admission(uint64_t max_tokens, metrics::RouterMetrics* metrics, Clock* clock);

  // Accepts a request of `rows` tokens, which is over with OnAnswered.
  //   UNAVAILABLE         draining.
  //   RESOURCE_EXHAUSTED  more tokens than may be held.
  absl::Status Admit(uint64_t rows);

  // A batch is under way, and over.
  void BatchStarted();
  void BatchFinished();

  // Refuses new requests, and waits until no request and no batch is under way or the time is over.
  // True when none is.
  bool Drain(absl::Duration timeout);

  // JobObserver.
  void OnAnswer(const batch::ForwardJob& job, absl::StatusCode code) override;
  void OnAnswered() override;

 private:
  const uint64_t max_tokens_;
  metrics::RouterMetrics* const metrics_;
  Clock* const clock_;

  absl::Mutex mutex_;
  uint64_t tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t requests_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t batches_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  absl::CondVar idle_;
};

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_ADMISSION_H_
