// What one node computes of a batch, with what is needed to give it to another node.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_PART_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_PART_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/trace/trace_context.h"
#include "router_service/mesh/mesh_view.h"
#include "router_service/mesh/node_batch.h"
#include "router_service/plan/node_plan.h"

namespace expertmesh::batch {

struct BatchPart;

// The run that a part belongs to.
class PartObserver {
 public:
  virtual ~PartObserver() = default;
  // As NodeBatch::Done.
  virtual void OnPartDone(BatchPart* part, const absl::Status& status) = 0;
};

// Lives in a SharedPool.
struct BatchPart final : mesh::NodeBatch {
  // NodeBatch.
  bool CanGoElsewhere(const mesh::MeshView& now) const override;
  void Done(const absl::Status& status) override { observer->OnPartDone(this, status); }

  // It has assignments to shared experts alone.
  bool OnlyShared() const;

  // SharedPool.
  void Recycle();
  size_t MemoryBytes() const;

  // Which does not end before Done.
  PartObserver* observer = nullptr;
  uint32_t layer = 0;
  // Id of the layer's shared experts, which this router can compute when no node is left.
  uint32_t shared_expert = ~uint32_t{0};
  plan::NodePlan plan;
  // What it was planned on.
  std::shared_ptr<const mesh::MeshView> view;
  // Nodes that lost these assignments before, or are full; and nodes that are there, but refused
  // the batch, failed, or answered with what is damaged or in doubt. The former are not asked
  // again, the latter only for what no other node holds.
  absl::flat_hash_set<mesh::NodeIndex> lost_by;
  absl::flat_hash_set<mesh::NodeIndex> refused_by;
  uint32_t attempt = 1;
  // The router's span of the call, 0 when it does not trace; when the node was asked, when it
  // answered or was given up, and how.
  trace::SpanId span = 0;
  absl::Time sent;
  absl::Time done;
  absl::Status outcome;
  bool last_attempt = false;
  absl::Status why_lost;
  // Done without error, and no other node was asked instead.
  bool contributes = false;
  // Rows of the batch that were sent finite and came back with a NaN or an infinity, when that is
  // so of this part. Ascending.
  std::vector<uint32_t> doubtful_rows;
  // Another node's answer was in doubt, so this one was asked.
  bool second_opinion = false;
};

// By expert: which nodes of `view` may be asked again for what `part` had. Each assignment stays
// with the slice of its expert that the part's node had. Shared experts are asked of fresh nodes
// only, and of none after the last attempt: it is the router's turn then.
std::vector<mesh::ExpertReplicas> ReplicasFor(const BatchPart& part, const mesh::MeshView& view);

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_PART_H_
