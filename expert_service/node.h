// One running expert service, free of gRPC: what it holds, its executor, its state. A server (gRPC
// or in-process) carries it.
//
// Life of a batch: a router's stream brings frames to OpenCompute's handler; BatchAssembler checks
// them and puts them together; BatchQueue lets it wait; Executor merges it with others of its layer
// and submits them to the backend; ReplySender sends the answer through the stream's FrameSink. An
// error at any step becomes that batch's answer and touches no other.
//
// Guarantees: every batch gets exactly one answer (a result or one error) unless its stream goes;
// memory for what waits is bounded; Drain loses nothing that was accepted.
#ifndef EXPERTMESH_EXPERT_SERVICE_NODE_H_
#define EXPERTMESH_EXPERT_SERVICE_NODE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "common/base/thread_cpu_time.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/backend.h"
#include "common/trace/resource.h"
#include "common/transport/transport.h"
#include "expert_service/batch_assembly.h"
#include "expert_service/change_notifier.h"
#include "expert_service/executor.h"
#include "expert_service/expert_selection.h"
#include "expert_service/hosted_experts.h"
#include "expert_service/node_metrics.h"
#include "expert_service/reply_sender.h"

namespace expertmesh::node {

struct NodeOptions {
  // Stable name; not empty.
  std::string node_id;
  // The program's version, which Describe tells.
  std::string version;
  // Nodes of one zone may be lost together; empty: not told.
  std::string zone;
  // OpenTelemetry resource attributes of this process, as Describe tells them.
  trace::TextAttributes resource_attributes;
  // Largest batch, and most rows computed together; at least 1.
  uint32_t max_batch_rows = 8192;
  // Rows that may wait; at least max_batch_rows.
  uint64_t max_queue_rows = 65536;
  // Received bytes that may wait; 0: enough for max_queue_rows in float32.
  uint64_t max_queue_bytes = 0;
  // Largest frame accepted.
  size_t max_frame_bytes = size_t{8} << 20;
  // Largest frame sent, unless one row is larger.
  size_t reply_frame_bytes = size_t{1} << 20;
  // Bytes of unfinished batches per stream; 0: enough for two batches of max_batch_rows in float32.
  size_t max_open_bytes = 0;
  // As ExecutorOptions::inline_parameters.
  uint64_t inline_parameters = 0;
  // Packed weights of all that is hosted; 0: no limit.
  uint64_t memory_limit_bytes = 0;
  // Packed weights in memory: what is hosted beyond is packed from the checkpoint when it is needed
  // (resident_experts.h). 0: all are.
  uint64_t memory_bytes = 0;
  // Which experts stay in memory, then: a name of expert_cache::CachePolicyNames().
  std::string memory_policy = "frequency";
  // Which experts have a series of their own.
  telemetry::ExpertMetricsOptions expert_metrics;
  // Threads that pack weights at the same time; at least 1.
  int load_threads = 1;
  // As HostedExpertsOptions::cpu_time. It is rested for by the node's clock: one that stands still
  // is for nodes that use none.
  std::function<absl::Duration()> cpu_time = ThreadCpuTime;
};

// Thread-safe. Streams (handlers) must be gone before the node is destroyed.
class Node final : public NodeEndpoint {
 public:
  // `backend` and `clock` must outlive the node. The state is LOADING.
  //   INVALID_ARGUMENT  names the option.
  static absl::StatusOr<std::unique_ptr<Node>> Create(
      const NodeOptions& options, std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
      experts::Backend* backend, Clock* clock, std::shared_ptr<prometheus::Registry> registry);
  ~Node() override;

  // Whether Load would be refused, memory limit included, before anything is read.
  absl::Status CheckLoad(absl::Span<const LayerExperts> selection) const;

  // Loads what the flags ask for, layer by layer, each offered at once; then READY, or FAILED with
  // the reason. Blocks. Call it once.
  absl::Status Load(absl::Span<const LayerExperts> selection,
                    const HostedExperts::Progress& progress = nullptr);

  // DRAINING at once. Batches are still accepted for `linger`, so that routers have time to hear of
  // it, and until everything accepted is answered; then, or at `deadline`, the node refuses more.
  // A running Load ends with CANCELLED. True when nothing was left unanswered.
  bool Drain(absl::Duration linger, absl::Time deadline);

  // What computes is lost for good: FAILED with the reason, for ever. The node holds nothing any
  // more as routers see it, and batches, those under way among them, are answered with UNAVAILABLE.
  // Does not block.
  void LoseDevice(const absl::Status& why);

  // What is read at a scrape, beside the registry.
  std::shared_ptr<const prometheus::Collectable> computed() const { return metrics_.computed(); }

  // NodeEndpoint. Besides what expert.proto says, LoadExperts gives UNAVAILABLE while draining.
  // A term is looked at when the turn of a change has come, too: one that waited while a higher
  // term was seen is refused.
  v1::NodeDescription Describe() const override;
  internal::v1::WatchStatusResponse Status() const override;
  std::unique_ptr<StatusSubscription> Subscribe(std::function<void()> on_change) override;
  std::unique_ptr<StreamHandler> OpenCompute(std::shared_ptr<FrameSink> replies) override;
  absl::StatusOr<internal::v1::LoadExpertsResponse> LoadExperts(
      const internal::v1::LoadExpertsRequest& request) override;
  absl::StatusOr<internal::v1::UnloadExpertsResponse> UnloadExperts(
      const internal::v1::UnloadExpertsRequest& request) override;

 private:
  Node(const NodeOptions& options, std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
       experts::Backend* backend, Clock* clock, std::shared_ptr<prometheus::Registry> registry,
       std::unique_ptr<ResidentExperts> resident);

  AssemblyLimits MakeAssemblyLimits() const;
  ExecutorOptions MakeExecutorOptions() const;
  // LOADING only leads to READY or FAILED; DRAINING, and a lost device, to nothing.
  void SetState(v1::NodeState state, std::string message);
  void OnHostedChange();
  // TERM_PASSED when a higher term was seen; else it is the highest.
  absl::Status CheckTerm(uint64_t term);
  v1::MemoryUsage Memory() const;

  const NodeOptions options_;
  const std::string instance_id_;
  const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
  experts::Backend* const backend_;
  Clock* const clock_;
  NodeMetrics metrics_;
  const ReplySender reply_sender_;
  ChangeNotifier notifier_;

  mutable absl::Mutex mutex_;
  absl::CondVar linger_;
  v1::NodeState state_ ABSL_GUARDED_BY(mutex_) = v1::NODE_STATE_LOADING;
  std::string message_ ABSL_GUARDED_BY(mutex_);
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t highest_term_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> device_lost_ = false;  // Set under mutex_.

  const std::unique_ptr<ResidentExperts> resident_;  // Null: all experts are in memory.
  HostedExperts hosted_;
  Executor executor_;  // Last: its batches use all of the above.
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_NODE_H_
