// The door of the router, free of gRPC types: reads a request, checks it, and puts it into the
// queue of its layer.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_FORWARD_SERVICE_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_FORWARD_SERVICE_H_

#include <cstdint>
#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/shared_pool.h"
#include "common/base/thread_pool.h"
#include "common/base/timer_queue.h"
#include "common/transport/call_context.h"
#include "common/wire/message_codec.h"
#include "expertmesh/v1/router.pb.h"
#include "router_service/batch/forward_job.h"
#include "router_service/batch/layer_batcher.h"
#include "router_service/batch/layer_runtime.h"
#include "router_service/mesh/fleet.h"
#include "router_service/metrics/router_metrics.h"
#include "router_service/serve/admission.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::serve {

// One MoE layer, with the queue of its requests.
struct ServedLayer {
  batch::LayerRuntime runtime;
  std::unique_ptr<batch::LayerBatcher> batcher;
};

// By layer index. Constant while requests come.
using ServedLayers = std::map<uint32_t, ServedLayer>;

struct ForwardServiceOptions {
  uint32_t d_model = 0;
  // Tokens of one request at most.
  uint64_t max_tokens = 0;
  // Longest time any request may take, also one that came without a deadline.
  absl::Duration max_request_time;
  // Bytes of the largest answer that can be sent.
  uint64_t max_response_bytes = 0;
  // Null: nothing is traced. Must outlive the service.
  tracing::Tracer* tracer = nullptr;
};

// Bytes of a request beside its tensor, which the thread that brings it reads itself; and at once
// read by the pool, so that what waits there is bounded.
inline constexpr size_t kQuickBytes = 64 << 10;
inline constexpr int kMostReads = 64;

// Bytes of a request of `max_tokens` beside its tensor, at most.
size_t MostOtherBytes(uint64_t max_tokens);

// Thread-safe.
class ForwardService {
 public:
  // Pointers must outlive the service.
  ForwardService(const ForwardServiceOptions& options, const ServedLayers* layers,
                 Admission* admission, const mesh::Fleet* fleet, metrics::RouterMetrics* metrics,
                 TimerQueue* timers, ThreadPool* pool, Clock* clock);

  // When no call to Forward can come any more: waits for those that are being read.
  ~ForwardService();

  // Serves one encoded ForwardRequest. `context`: of the call that brought it, its deadline on
  // `clock`; the request may have an earlier one of its own. Errors are in the response's status:
  // respond is always called, once, perhaps before Forward returns.
  void Forward(const Frame& request, const CallContextPtr& context, batch::Respond respond);

  // Waits for requests that are being read by the pool.
  void AwaitReads() const;

  // Frees the memory of requests that are over.
  void ShedMemory() { jobs_.Shed(); }

 private:
  // What Forward does with a request that takes long to read, on the pool.
  void ReadOnPool(const Frame& request, absl::Time arrival, const CallContextPtr& context,
                  const batch::ForwardJobPtr& job, batch::Respond respond);
  // It arrived at `arrival`.
  void Refuse(const batch::ForwardJob& job, absl::Time arrival, const absl::Status& why,
              batch::Respond* respond);
  void BeginTrace(const CallContext& context, batch::ForwardJob* job) const;
  // Serves what `job` has received, `read` being how its decoding went.
  void Serve(absl::Status read, absl::Time arrival, const CallContextPtr& context,
             const batch::ForwardJobPtr& job, batch::Respond respond);
  // Accepts the request that `job` has received, unless there is an error. Takes `respond` only
  // then.
  absl::Status Accept(absl::Time arrival, const CallContextPtr& context, batch::ForwardJob* job,
                      batch::Respond* respond);
  absl::Status Validate(const TensorMessage<v1::ForwardRequest>& request) const;
  absl::Status CheckAnswerSize(const TensorMessage<v1::ForwardRequest>& request,
                               Dtype output_dtype) const;
  // For a request of no tokens.
  void AnswerNothing(batch::ForwardJob* job);

  const ForwardServiceOptions options_;
  const ServedLayers* const layers_;
  Admission* const admission_;
  const mesh::Fleet* const fleet_;
  metrics::RouterMetrics* const metrics_;
  TimerQueue* const timers_;
  ThreadPool* const pool_;
  Clock* const clock_;
  SharedPool<batch::ForwardJob> jobs_{{.objects = 256, .bytes = 32 << 20}};
  mutable absl::Mutex mutex_;
  int reads_ ABSL_GUARDED_BY(mutex_) = 0;  // Under way on the pool.
};

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_FORWARD_SERVICE_H_
