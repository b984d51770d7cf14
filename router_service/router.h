// Puts a router together, free of gRPC types:
//
//   ForwardService -> LayerBatcher -> BatchRun (gather, route, plan, dispatch, combine, answer)
//     serve             batch            |
//                                      Fleet -> NodeLink (one per node) -> Transport
//                                      mesh
#ifndef EXPERTMESH_ROUTER_SERVICE_ROUTER_H_
#define EXPERTMESH_ROUTER_SERVICE_ROUTER_H_

#include <prometheus/registry.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/shared_pool.h"
#include "common/base/thread_pool.h"
#include "common/base/timer_queue.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/backend.h"
#include "common/telemetry/expert_series.h"
#include "common/telemetry/metrics.h"
#include "common/tensor/buffer_pool.h"
#include "common/transport/call_context.h"
#include "common/transport/transport.h"
#include "expertmesh/v1/control.pb.h"
#include "expertmesh/v1/router.pb.h"
#include "router_service/balance/authority.h"
#include "router_service/balance/controller.h"
#include "router_service/balance/routing_recorder.h"
#include "router_service/batch/batch_run.h"
#include "router_service/batch/layer_batcher.h"
#include "router_service/mesh/cross_check.h"
#include "router_service/mesh/fleet.h"
#include "router_service/metrics/balance_metrics.h"
#include "router_service/metrics/router_metrics.h"
#include "router_service/serve/admission.h"
#include "router_service/serve/forward_service.h"
#include "router_service/serve/router_server.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::router {

// Central management.
struct BalanceOptions {
  balance_control::ControllerOptions controller;
  // Address of the router that decides; empty: this one does.
  std::string follow;
  // File that routing is recorded in (with NAME.1, `max_record_bytes` at most); empty: none.
  std::string record;
  uint64_t max_record_bytes = uint64_t{1} << 30;
  // How it is reached; needed with `follow`, and must outlive the router.
  balance_control::AuthorityLinks* links = nullptr;
};

struct RouterOptions {
  batch::BatcherOptions batcher;
  // The same for every layer.
  batch::LayerOptions layer;
  // Tokens accepted and not yet answered, all layers together; more are refused with
  // RESOURCE_EXHAUSTED.
  uint64_t max_tokens_in_flight = 262144;
  // No more is held than is served within this time, at the rate that is measured, beyond a few
  // full batches.
  absl::Duration max_queue_time = absl::Milliseconds(500);
  // Longest time any request may take, also one that came without a deadline.
  absl::Duration max_request_time = absl::Seconds(60);
  // Largest message accepted; told to clients.
  uint64_t max_message_bytes = 256ull << 20;
  // The program's version; told to clients.
  std::string version;
  // Types of rows on the links to nodes, see WireEncodings::Parse.
  std::string wire_hidden_states = "auto";
  std::string wire_partials = "auto";
  // Frames to nodes are cut to about this size.
  uint64_t max_frame_bytes = 1 << 20;
  // Nodes tried for one assignment, the first included. At least 1.
  uint32_t max_attempts = 3;
  // When answers of nodes are overdue, and what becomes of nodes that fail.
  mesh::HealthOptions health;
  // Batches of at most so many tokens are routed and summed on the network thread, which saves two
  // changes of threads and keeps that thread from anything else meanwhile. 0: none.
  uint64_t inline_tokens = 8;
  // Output bits do not depend on which nodes served a token; costs top-k times the bytes of answers
  // and the memory for them.
  bool strict = false;
  // Who computes shared experts.
  batch::SharedExpertsAt shared_experts = batch::SharedExpertsAt::kRouter;
  // Every frame to a node, and every answer, has a checksum of its bytes.
  bool frame_checksums = false;
  // Bytes of the checkpoint that are read per second to verify the weights that nodes hold, beside
  // those of experts that nodes disagree about, which are read at once. 0: only these.
  uint64_t verify_bytes_per_second = uint64_t{64} << 20;
  // Between two cross-checks of a layer, see CrossChecker; zero: there are none.
  absl::Duration cross_check_interval = absl::ZeroDuration();
  // Which experts have a series of their own.
  telemetry::ExpertMetricsOptions expert_metrics;
  // Threads that gather, score, plan and combine; 0: as many as cores.
  int threads = 0;
  BalanceOptions balance;
  // Null: nothing is traced. Must outlive the router.
  tracing::Tracer* tracer = nullptr;
};

// Thread-safe. What a batch needs memory for is kept and used again, so that after a while nothing
// is allocated for one; the pools are bounded, and give back what is left when the router goes.
class Router {
 public:
  // Reads the gates and shared experts of every layer. `backend` computes shared experts and fixes
  // the type of activations. `clock`, `transport` and `registry` must outlive the router.
  static absl::StatusOr<std::unique_ptr<Router>> Create(
      const RouterOptions& options, std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
      std::unique_ptr<experts::Backend> backend, Transport* transport, Clock* clock,
      prometheus::Registry* registry);

  // Answers what is in flight (with UNAVAILABLE where it must) and stops.
  ~Router();

  // See ForwardService.
  void Forward(const Frame& request, const CallContextPtr& context, batch::Respond respond) {
    forward_->Forward(request, context, std::move(respond));
  }
  v1::DescribeModelResponse DescribeModel() const;
  mesh::Fleet& fleet() { return *fleet_; }
  balance_control::Controller& controller() { return *controller_; }
  bool ready() const { return fleet_->ready(); }

  // Refuses new requests with UNAVAILABLE, and waits until what was accepted is answered or the
  // time is over. True when everything was answered.
  bool Drain(absl::Duration timeout) { return admission_.Drain(timeout); }

  // Frees what is kept of batches that are over.
  void ShedMemory();

  // For a server; valid for as long as the router.
  serve::ServedRouter served();
  // Adds metrics and pages of load to `server`, which must not outlive the router.
  void AddTo(telemetry::MetricsServer* server);

 private:
  Router(const RouterOptions& options, std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
         std::unique_ptr<experts::Backend> backend, Clock* clock, prometheus::Registry* registry);

  // The layers, and with them the selection biases of the first view.
  absl::Status LoadLayers();
  absl::Status Start(Transport* transport, mesh::WireEncodings encodings);
  void StartServing();
  // What the controller starts with.
  balance_control::SteeredModel DescribeSteered() const;
  balance_control::LoadCounts ReadCounts() const;
  std::map<uint32_t, balance_control::LayerGauges> ReadGauges() const;
  absl::Status StartRecording();
  void RunBatch(const serve::ServedLayer* layer, std::vector<batch::ForwardJobPtr>* jobs);
  void OnBatchFinished(const batch::LayerRuntime* layer, uint64_t tokens, absl::Time closed_at);

  const RouterOptions options_;
  const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
  const std::unique_ptr<experts::Backend> backend_;
  const std::unique_ptr<const batch::PartialsLayout> layout_;
  Clock* const clock_;
  metrics::RouterMetrics metrics_;
  metrics::BalanceMetrics balance_metrics_;
  serve::Admission admission_;
  serve::ServedLayers layers_;                        // Constant after Create.
  std::shared_ptr<const mesh::SelectBiases> biases_;  // Likewise.
  plan::NodePlanPool node_plans_;
  BufferPool buffers_;
  SharedPool<batch::BatchPart> parts_{{.objects = 256, .bytes = 1 << 20}};
  SharedPool<batch::BatchRun> runs_{{.objects = 32, .bytes = 64 << 20}};
  std::unique_ptr<balance_control::RoutingRecorder> recorder_;
  std::atomic<uint64_t> shared_work_{0};
  batch::BatchEnvironment environment_;  // Constant after Create.

  // Destroyed in reverse order: first the fleet (gives up what is in flight), then timers, then the
  // pool.
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<TimerQueue> timers_;
  // Hears of what is in flight until the fleet goes.
  std::unique_ptr<mesh::CrossChecker> cross_checker_;
  std::unique_ptr<mesh::Fleet> fleet_;
  std::unique_ptr<const balance_control::Authority> authority_;
  std::unique_ptr<balance_control::Controller> controller_;
  std::unique_ptr<serve::ForwardService> forward_;
  uint64_t fleet_subscription_ = 0;
};

}  // namespace expertmesh::router

#endif  // EXPERTMESH_ROUTER_SERVICE_ROUTER_H_
