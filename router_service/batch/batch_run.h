// One batch of one layer, from closed queue to answers:
//
//   gather rows -> gate -> plan -> dispatch to nodes --+--> combine -> answer each request
//                                  shared experts -----+
//
// What a lost node had is planned anew on other replicas within the same deadline, each assignment
// counted exactly once. An error touches only the requests whose tokens it touches.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_RUN_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_RUN_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/shared_pool.h"
#include "common/base/thread_pool.h"
#include "common/experts/backend.h"
#include "common/gate/gate.h"
#include "common/gate/shared_gate.h"
#include "common/model/model_description.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/buffer_pool.h"
#include "router_service/batch/combine.h"
#include "router_service/batch/forward_job.h"
#include "router_service/mesh/cross_check.h"
#include "router_service/mesh/fleet.h"
#include "router_service/mesh/node_link.h"
#include "router_service/metrics/router_metrics.h"
#include "router_service/plan/planner.h"

namespace expertmesh::batch {

// Assignments computed (those dropped for want of capacity not counted) per expert of one layer
// since the router started. Thread-safe.
struct LayerLoadCounters {
  explicit LayerLoadCounters(uint32_t num_experts) : assignments(num_experts) {}
  std::atomic<uint64_t> tokens{0};
  std::vector<std::atomic<uint64_t>> assignments;
};

// What all batches of one layer share. Outlives them.
struct LayerRuntime {
  // With the routing options in force.
  MoeLayerDescription description;
  std::unique_ptr<const gate::Gate> gate;
  // Null when the layer has none.
  std::shared_ptr<const experts::PackedExpert> shared_expert;
  std::unique_ptr<const gate::SharedGate> shared_gate;
  std::unique_ptr<LayerLoadCounters> load;
};

class BatchRun;

// A NodeBatch with what is needed to plan it anew. Lives in a SharedPool.
struct BatchPart final : mesh::NodeBatch {
  void Done(const absl::Status& status, bool lost) override;

  // SharedPool.
  void Recycle();
  size_t MemoryBytes() const;

  // Which does not end before Done.
  BatchRun* run = nullptr;
  std::shared_ptr<const mesh::Placement> placement;
  // Nodes that lost these assignments before; and nodes that refused the batch since they do not
  // hold all of it, or whose answer was damaged or in doubt. The former are not asked again, the
  // latter only for what nobody else holds.
  absl::flat_hash_set<mesh::NodeIndex> lost_by;
  absl::flat_hash_set<mesh::NodeIndex> refused_by;
  uint32_t attempt = 1;
  absl::Status why_lost;
  // Done without error, and nobody else was asked instead.
  bool contributes = false;
  // Rows of the batch that were sent finite and came back with a NaN or an infinity; empty unless
  // that is so of this part. Ascending.
  std::vector<uint32_t> doubtful_rows;
  // Another node's answer was in doubt, so this one was asked.
  bool second_opinion = false;
};

// What all batches share. Outlives them.
struct RunEnvironment {
  mesh::Fleet* fleet = nullptr;
  ThreadPool* pool = nullptr;
  Clock* clock = nullptr;
  experts::Backend* backend = nullptr;
  metrics::RouterMetrics* metrics = nullptr;
  mesh::CrossChecker* cross_checker = nullptr;
  // Memory of batches that are over.
  plan::NodePlanPool* node_plans = nullptr;
  SharedPool<BatchPart>* parts = nullptr;
  BufferPool* buffers = nullptr;
  uint32_t d_model = 0;
  // Type of rows inside the mesh.
  DType activation_dtype = DType::kF32;
  // Frames to nodes are cut to about this size, in bytes; at least one row goes into each.
  uint64_t max_frame_bytes = 1 << 20;
  // Rows of a node's answer to one batch times their size stay below this, in bytes.
  uint64_t max_node_batch_bytes = 32 << 20;
  // Nodes tried for one assignment, the first included.
  uint32_t max_attempts = 3;
  // Batches of at most so many tokens are worked on where they are: on the thread that brought the
  // last request, and on the one that brought the last partials.
  uint64_t inline_tokens = 0;
  // Nodes answer with a row for each assignment, and the router sums them in slot order.
  bool strict = false;
  // After the last answer of a batch, which is over by then: its tokens, and when it was closed.
  std::function<void(const LayerRuntime* layer, uint64_t tokens, absl::Time closed_at)> on_finished;
};

// While it lives, this thread uses its planner and what else it has one of for sending: a batch
// that an answer given at once leads to must begin elsewhere.
struct PlanningScope {
  PlanningScope() { planning = true; }
  ~PlanningScope() { planning = false; }
  static inline thread_local bool planning = false;
};

// Lives in a SharedPool: what a batch needs memory for is a member, and serves the next batch. From
// Run until after the last answer it holds itself; so callbacks, each of which is a piece of its
// work, need not.
class BatchRun {
 public:
  // Begins, here or on a thread of the pool. The rest follows by callbacks. `jobs` are not empty;
  // takes them, and leaves memory in their place.
  static void Run(std::shared_ptr<BatchRun> run, const RunEnvironment* environment,
                  const LayerRuntime* layer, std::vector<ForwardJobPtr>* jobs);

  // SharedPool.
  void Recycle();
  size_t MemoryBytes() const;

 private:
  friend struct BatchPart;

  // Everything that computes, up to what the nodes are sent.
  void Start();
  // Valid until this thread plans again.
  plan::BatchPlan& Plan(const std::vector<mesh::ExpertReplicas>& replicas,
                        const plan::Assignments& assignments) const;
  void GatherRows();
  void Route();
  void DispatchAll();
  void ComputeShared();
  // Sends what `plan` says; fails the requests whose assignments it could not place.
  void Dispatch(plan::BatchPlan& plan, const std::shared_ptr<const mesh::Placement>& placement,
                const BatchPart* replaces);
  // Cuts the only one of `pieces` to what its node may answer at a time.
  void CutForAnswers(std::vector<plan::NodePlan>* pieces) const;
  // Sends rows beyond the range of the link's type as they are, apart from the others.
  void SendAsItFits(plan::NodePlan plan, const std::shared_ptr<const mesh::Placement>& placement,
                    const BatchPart* replaces);
  // Rows of `plan` with a finite value that would be infinite as `dtype`; ascending. Counts them.
  std::vector<uint32_t> RowsBeyond(const plan::NodePlan& plan, DType dtype) const;
  // `link`: of the plan's node, null when that has left.
  void Send(plan::NodePlan plan, const std::shared_ptr<mesh::NodeLink>& link, DType hidden_states,
            const std::shared_ptr<const mesh::Placement>& placement, const BatchPart* replaces);
  std::shared_ptr<BatchPart> MakePart(plan::NodePlan plan,
                                      const std::shared_ptr<const mesh::Placement>& placement,
                                      const BatchPart* replaces);
  // Rows [begin, end) of the plan as they go over the link. `converted`: all of them, when the
  // link's type is not that of the activations.
  TensorFrame HiddenStates(const plan::NodePlan& plan, const TensorFrame& converted, uint32_t begin,
                           uint32_t end) const;
  // All of the plan's rows as `dtype`: gathered and converted in one step.
  TensorFrame Convert(const plan::NodePlan& plan, DType dtype) const;
  void ObserveError(const plan::NodePlan& plan, uint64_t batch_id, DType dtype) const;
  // Appends to `frames`.
  void EncodeFrames(const plan::NodePlan& plan, uint64_t batch_id, uint64_t epoch,
                    mesh::WireEncoding encoding, uint64_t frame_limit,
                    std::vector<Frame>* frames) const;
  // What all frames of a batch to one node say, but for their rows.
  void DescribeBatch(const plan::NodePlan& plan, uint64_t batch_id, uint64_t epoch, DType partials,
                     v1::ComputeRequest* request) const;
  void OnPartDone(BatchPart* part, const absl::Status& status, bool lost);
  // Leaves the nodes that may be asked again for what `part` had.
  static void Narrow(const BatchPart& part, mesh::ExpertReplicas* replicas);
  // By expert: who may be asked again for what `part` had.
  std::vector<mesh::ExpertReplicas> ReplicasFor(const BatchPart& part,
                                                const mesh::Placement& placement) const;
  void PlanAnew(BatchPart* part);
  // Rows of the batch that `part` brought back with a NaN or an infinity although they, and the
  // weights of their assignments, were finite.
  std::vector<uint32_t> DoubtfulRows(const BatchPart& part) const;
  // Finite rows that came back as they should not: the node may be damaged, or the model's values
  // really leave the range. True when some other node is asked, whose answer counts instead.
  bool AskElsewhere(BatchPart* part);
  // Counts each part that was in doubt by whether other nodes said the same.
  void JudgeDoubtful();
  plan::NodeLoad LoadOf(mesh::NodeIndex node) const;
  void FailUnplaced(const std::vector<plan::Unplaced>& unplaced, const absl::Status& cause);
  void FailAll(const absl::Status& status, absl::string_view stage);
  void FailRows(const std::vector<uint32_t>& rows, const absl::Status& status);
  size_t JobOfRow(uint32_t row) const;
  // Latest deadline among unanswered requests; InfiniteFuture when one has none.
  absl::Time LatestDeadline() const;
  bool AllAnswered() const;

  // The run ends when every piece of work that was added has been removed.
  void AddWork() { work_.fetch_add(1, std::memory_order_relaxed); }
  void WorkDone();
  void Finish();
  void CombineAndAnswer();
  // Fills contributions_, in the order in which they are summed, and what SumRows reads.
  void CollectContributions();
  // All that contributions and shared experts contribute to these rows, [range.count, d_model]
  // float32. By any number of threads at once.
  void SumRows(RowRange range, float* sum) const;
  // The job's rows as it wants them; they are those of the batch from `first` on. OUT_OF_RANGE when
  // a finite value of theirs would be infinite so.
  absl::StatusOr<TensorFrame> Output(const ForwardJob& job, size_t first) const;
  // Overwrites response_, but for its timing.
  void WriteResponse(const ForwardJob& job, size_t first);
  // What the timing of all requests has in common.
  void WriteTiming(absl::Time received_at);
  // Of the rows [first, first + rows).
  void WriteRouting(size_t first, size_t rows, v1::Routing* routing) const;
  void WriteDropped(size_t first, size_t rows, v1::ForwardResponse* response) const;

  std::shared_ptr<BatchRun> self_;
  const RunEnvironment* environment_ = nullptr;
  const LayerRuntime* layer_ = nullptr;
  std::vector<ForwardJobPtr> jobs_;
  uint64_t tokens_ = 0;
  absl::Time closed_at_;
  bool inline_ = false;

  // Written by Start before anything is sent, constant afterwards.
  uint32_t rows_ = 0;
  std::vector<uint32_t> first_row_of_job_;
  std::vector<gate::RequestTokens> requests_;
  std::shared_ptr<AlignedBuffer> hidden_states_;  // [rows, d_model] of the activation dtype.
  gate::RoutedTokens routed_;
  absl::Time dispatched_at_;

  // Of ComputeShared, read after the last WorkDone: [rows, d_model] float32, and what it works on.
  std::shared_ptr<AlignedBuffer> shared_output_;
  std::vector<uint32_t> shared_row_begin_;
  std::vector<const experts::PackedExpert*> shared_experts_;
  std::vector<float> shared_weights_;

  std::atomic<uint32_t> work_{0};
  std::atomic<uint64_t> epoch_{0};
  absl::Mutex mutex_;
  // All that were ever sent.
  std::vector<std::shared_ptr<BatchPart>> parts_ ABSL_GUARDED_BY(mutex_);

  // Of Finish.
  std::vector<BatchPart*> contributions_;
  std::vector<Contribution> by_row_;
  std::vector<AssignmentContribution> by_assignment_;
  SlotPartials slot_partials_;
  v1::ForwardResponse response_;
  // Of response_, while a request does not ask for it.
  std::unique_ptr<v1::Routing> spare_routing_;
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_RUN_H_
