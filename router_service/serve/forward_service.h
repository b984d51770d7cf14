// The door of the router, free of gRPC types: reads a request, checks it, and puts it into the
// queue of its layer.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_FORWARD_SERVICE_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_FORWARD_SERVICE_H_

#include <cstdint>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/shared_pool.h"
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
};

// Thread-safe.
class ForwardService {
 public:
  // Pointers must outlive the service.
  ForwardService(const ForwardServiceOptions& options, const ServedLayers* layers,
                 Admission* admission, const mesh::Fleet* fleet, metrics::RouterMetrics* metrics,
                 TimerQueue* timers, Clock* clock);

  // Serves one encoded ForwardRequest. `context`: of the call that brought it, its deadline on
  // `clock`; the request may have an earlier one of its own. Errors are in the response's status:
  // respond is always called, once, perhaps before Forward returns.
  void Forward(const Frame& request, const CallContextPtr& context, batch::Respond respond);

  // Frees the memory of requests that are over.
  void ShedMemory() { jobs_.Shed(); }

 private:
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
  Clock* const clock_;
  SharedPool<batch::ForwardJob> jobs_{{.objects = 256, .bytes = 32 << 20}};
};

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_FORWARD_SERVICE_H_
