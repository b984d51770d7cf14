// Carries one batch through its stages: the order in which they run, on which thread, and the count
// of what is still under way. An error touches only the requests whose tokens it touches.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_RUN_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_RUN_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "router_service/batch/answer_stage.h"
#include "router_service/batch/batch.h"
#include "router_service/batch/combine_stage.h"
#include "router_service/batch/dispatch_stage.h"
#include "router_service/batch/plan_stage.h"
#include "router_service/batch/route_stage.h"
#include "router_service/batch/shared_stage.h"
#include "router_service/batch/sum_check.h"
#include "router_service/batch/trace_stage.h"

namespace expertmesh::batch {

// Lives in a SharedPool: what a batch needs memory for is a member, and serves the next batch. From
// Run until after the last answer it holds itself, so that callbacks, each of which is a piece of
// its work, need not.
class BatchRun final : private PartObserver {
 public:
  // Begins, here or on a thread of the pool. The rest follows by callbacks. `jobs` are not empty;
  // takes them, and leaves memory in their place.
  static void Run(std::shared_ptr<BatchRun> run, const BatchEnvironment* environment,
                  const LayerRuntime* layer, std::vector<ForwardJobPtr>* jobs);

  // SharedPool.
  void Recycle();
  size_t MemoryBytes() const;

 private:
  // Everything that computes, up to what the nodes are sent.
  void Start();
  void ComputeShared();
  void OnPartDone(BatchPart* part, const absl::Status& status) override;
  // Plans and dispatches what was lost, part by part, until no more is.
  void DispatchLost();
  // Lets lost parts be dispatched again: at once those that wait already.
  void EndDispatch();

  // Runs `work`, a piece of the run, on a thread of the pool.
  template <typename Work>
  void RunOnPool(Work work);
  // A piece of work is done; the run ends with the last, on this thread if it may.
  void WorkDone(bool finish_here);
  void Finish();
  // Fails the batch when an assignment is not in the sum exactly once; now and then.
  void CheckSum();

  std::shared_ptr<BatchRun> self_;
  // Small enough to be worked on where it is.
  bool inline_ = false;
  Batch batch_;

  RouteStage route_;
  PlanStage plan_;
  DispatchStage dispatch_;
  SharedStage shared_;
  CombineStage combine_;
  SumCheck sum_check_;
  AnswerStage answer_;
  TraceStage trace_;

  // Pieces of work under way.
  std::atomic<uint32_t> work_{0};
  absl::Mutex mutex_;
  // Some thread plans and dispatches: only one at a time, whose memory that is.
  bool dispatching_ ABSL_GUARDED_BY(mutex_) = false;
  // To be given to other nodes; each is a piece of work.
  std::vector<BatchPart*> lost_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_RUN_H_
