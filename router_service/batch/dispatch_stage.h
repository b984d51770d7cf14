// Fourth stage: each node gets its plan.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_DISPATCH_STAGE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_DISPATCH_STAGE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "router_service/batch/batch.h"
#include "router_service/batch/batch_part.h"
#include "router_service/batch/frame_encoder.h"
#include "router_service/plan/planner.h"

namespace expertmesh::batch {

// Keeps the parts of one batch at a time, for which it lives in a pooled run. Dispatch is called by
// one thread at a time.
class DispatchStage {
 public:
  // Sends what `plan`, made on `view`, says; its node plans are moved from. Every part sent is
  // added to `work` first, and comes back to `observer`. Plans of which no request waits for a row
  // are dropped; requests with assignments that could not be placed fail. `replaces`: the lost part
  // that the plan is for, null for the batch's first.
  void Dispatch(const Batch& batch, plan::BatchPlan* plan,
                const std::shared_ptr<const mesh::MeshView>& view, const BatchPart* replaces,
                PartObserver* observer, std::atomic<uint32_t>* work);

  // All that were ever sent for this batch, also those that were lost. Once no part is under way.
  const std::vector<std::shared_ptr<BatchPart>>& parts() const { return parts_; }

  // Forgets the parts; keeps memory.
  void Clear() { parts_.clear(); }
  size_t MemoryBytes() const;

 private:
  // What is the same for all parts of one Dispatch.
  struct Order {
    const Batch& batch;
    const std::shared_ptr<const mesh::MeshView>& view;
    const BatchPart* replaces;
    PartObserver* observer;
    std::atomic<uint32_t>* work;
  };

  // Sends rows beyond the range of the link's type as they are, apart from the others.
  void SendAsItFits(const Order& order, plan::NodePlan plan);
  void Send(const Order& order, plan::NodePlan plan, Dtype hidden_states);
  std::shared_ptr<BatchPart> MakePart(const Order& order, plan::NodePlan plan);

  std::vector<std::shared_ptr<BatchPart>> parts_;
  std::vector<plan::NodePlan> pieces_;
  FrameEncoder encoder_;
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_DISPATCH_STAGE_H_
