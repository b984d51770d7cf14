// The router, free of gRPC types: accepts requests, batches them per layer, and owns everything a
// batch needs (gates, shared experts, the fleet of nodes).
//
//   Forward -> LayerBatcher -> BatchRun (gate, plan, dispatch, combine) -> respond
//                                  |
//                                Fleet -> NodeLink (one per node) -> Transport
#ifndef EXPERTMESH_ROUTER_SERVICE_ROUTER_H_
#define EXPERTMESH_ROUTER_SERVICE_ROUTER_H_

#include <prometheus/registry.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/shared_pool.h"
#include "common/base/thread_pool.h"
#include "common/base/timer_queue.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/backend.h"
#include "common/gate/selection.h"
#include "common/tensor/buffer_pool.h"
#include "common/transport/call_context.h"
#include "common/transport/transport.h"
#include "expertmesh/v1/control.pb.h"
#include "expertmesh/v1/router.pb.h"
#include "router_service/batch/batch_run.h"
#include "router_service/batch/forward_job.h"
#include "router_service/batch/layer_batcher.h"
#include "router_service/mesh/fleet.h"
#include "router_service/metrics/router_metrics.h"

namespace expertmesh::router {

struct RouterOptions {
  batch::BatcherOptions batcher;
  // Which of several equal scores is chosen.
  gate::TieOrder tie_order = gate::TieOrder::kLowestIndex;
  // Changes the checkpoint's routing options of every layer, see WithRoutingJson. Empty: as they
  // are.
  std::string routing;
  // Tokens accepted and not yet answered, all layers together; more are refused with
  // RESOURCE_EXHAUSTED.
  uint64_t max_tokens_in_flight = 262144;
  // Longest time any request may take, also one that came without a deadline.
  absl::Duration max_request_time = absl::Seconds(60);
  // Largest message accepted; told to clients.
  uint64_t max_message_bytes = 256ull << 20;
  // Types of rows on the links to nodes, see WireEncodings::Parse.
  std::string wire_hidden_states = "auto";
  std::string wire_partials = "auto";
  // Frames to nodes are cut to about this size.
  uint64_t max_frame_bytes = 1 << 20;
  // Nodes tried for one assignment, the first included. At least 1.
  uint32_t max_attempts = 3;
  // Batches of at most so many tokens are routed and summed on the network thread, which saves two
  // changes of threads and keeps that thread from anything else meanwhile. 0: none.
  uint64_t inline_tokens = 8;
  // Output bits do not depend on which nodes served a token; costs top-k times the bytes of answers
  // and the memory for them.
  bool strict = false;
  // Every frame to a node, and every answer, has a checksum of its bytes.
  bool frame_checksums = false;
  // Bytes of the checkpoint that are read per second to verify the weights that nodes hold, beside
  // those of experts that nodes disagree about, which are read at once. 0: only these.
  uint64_t verify_bytes_per_second = uint64_t{64} << 20;
  // Between two cross-checks of a layer, see CrossChecker; zero: there are none.
  absl::Duration cross_check_interval = absl::ZeroDuration();
  // Threads that gather, score, plan and combine; 0: as many as cores.
  int threads = 0;
};

// Thread-safe. What a batch needs memory for is kept and used again, so that after a while nothing
// is allocated for one; the pools are bounded, and give back what is left when the router goes.
class Router final : private batch::JobObserver {
 public:
  // Reads the gates and shared experts of every layer. `backend` computes shared experts and fixes
  // the type of activations. `clock`, `transport` and `registry` must outlive the router.
  static absl::StatusOr<std::unique_ptr<Router>> Create(
      const RouterOptions& options, std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
      std::unique_ptr<experts::Backend> backend, Transport* transport, Clock* clock,
      prometheus::Registry* registry);

  // Answers what is in flight (with UNAVAILABLE where it must) and stops.
  ~Router() override;

  // Serves one encoded ForwardRequest. `context`: of the call that brought it, its deadline on
  // `clock`; the request may have an earlier one of its own. Errors are in the response's status:
  // respond is always called, once, perhaps before Forward returns.
  void Forward(const Frame& request, const CallContextPtr& context, batch::Respond respond);

  v1::DescribeModelResponse DescribeModel() const;
  v1::GetLoadResponse GetLoad() const;

  mesh::Fleet& fleet() { return *fleet_; }
  // For who encodes what the router answers.
  BufferPool& buffers() { return buffers_; }
  bool ready() const { return fleet_->placement()->complete(); }

  // Refuses new requests with UNAVAILABLE, and waits until what was accepted is answered or the
  // time is over. True when everything was answered.
  bool Drain(absl::Duration timeout);

 private:
  struct Layer {
    batch::LayerRuntime runtime;
    std::unique_ptr<batch::LayerBatcher> batcher;
  };

  Router(const RouterOptions& options, std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
         std::unique_ptr<experts::Backend> backend, Clock* clock, prometheus::Registry* registry);

  absl::Status LoadLayers();
  // The routing options in force for a layer of the checkpoint.
  absl::StatusOr<RoutingOptions> RoutingOf(const MoeLayerDescription& layer) const;
  absl::Status LoadShared(const GateWeights& gate, batch::LayerRuntime* layer) const;
  void StartFleet(Transport* transport, mesh::WireEncodings encodings);
  // Decodes `request` into `job`, and accepts it unless there is an error. Takes `respond` only
  // then.
  absl::Status Accept(const Frame& request, absl::Time arrival, const CallContextPtr& context,
                      batch::ForwardJob* job, batch::Respond* respond);
  // A request of no tokens.
  void AnswerNothing(batch::ForwardJob* job);
  absl::Status Validate(const TensorMessage<v1::ForwardRequest>& request) const;
  absl::Status Admit(uint64_t rows);
  void OnAnswer(const batch::ForwardJob& job, absl::StatusCode code) override;
  void OnAnswered() override;
  void RunBatch(Layer* layer, std::vector<batch::ForwardJobPtr>* jobs);
  void OnBatchFinished(const batch::LayerRuntime* layer, uint64_t tokens, absl::Time closed_at);
  void UpdateFleetMetrics();

  const RouterOptions options_;
  const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
  const std::unique_ptr<experts::Backend> backend_;
  Clock* const clock_;
  metrics::RouterMetrics metrics_;
  std::map<uint32_t, Layer> layers_;  // Constant after Create.
  plan::NodePlanPool node_plans_;
  BufferPool buffers_;
  SharedPool<batch::BatchPart> parts_{{.objects = 256, .bytes = 1 << 20}};
  SharedPool<batch::BatchRun> runs_{{.objects = 32, .bytes = 16 << 20}};
  SharedPool<batch::ForwardJob> jobs_{{.objects = 256, .bytes = 32 << 20}};
  batch::RunEnvironment environment_;  // Constant after Create.

  absl::Mutex mutex_;
  uint64_t tokens_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t runs_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t jobs_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  absl::CondVar idle_;

  // Destroyed in reverse order: first the fleet (gives up what is in flight), then timers, then the
  // pool.
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<TimerQueue> timers_;
  std::unique_ptr<mesh::CrossChecker>
      cross_checker_;  // Hears of what is in flight until the fleet goes.
  std::unique_ptr<mesh::Fleet> fleet_;
  uint64_t fleet_subscription_ = 0;
};

}  // namespace expertmesh::router

#endif  // EXPERTMESH_ROUTER_SERVICE_ROUTER_H_
