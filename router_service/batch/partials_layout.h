// What nodes answer with: a row for each token or one for each assignment (strict).
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_PARTIALS_LAYOUT_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_PARTIALS_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "common/gate/routed_tokens.h"
#include "common/tensor/dtype.h"
#include "router_service/mesh/placement.h"
#include "router_service/plan/node_plan.h"

namespace expertmesh::batch {

// Rows [first, first + count) of a batch. A batch is summed range by range, so that a sum is still
// in the cache when it is converted for the way back, and by several threads.
struct RowRange {
  size_t first = 0;
  size_t count = 0;
};

// Rows of d_model elements of an activation type.
struct Partials {
  const void* data = nullptr;
  Dtype dtype = Dtype::kF32;

  const void* Row(size_t row, size_t d_model) const {
    return static_cast<const uint8_t*>(data) + row * d_model * BytesOf(dtype);
  }
};

// What one node contributed to a batch.
struct Contribution {
  const plan::NodePlan* plan = nullptr;
  // As Placement::Layer, of the one that `plan` was made for: which slice of an expert the node
  // has.
  const std::vector<mesh::ExpertReplicas>* replicas = nullptr;
  // [rows that the layout makes of `plan`, d_model]
  Partials partials;
};

// The weighted sum of one batch at a time, in a fixed order. Keeps memory from batch to batch.
class PartialsSum {
 public:
  virtual ~PartialsSum() = default;

  // Begins a batch. `contributions`, in placement order, and `routed` must outlive its sums.
  // Assignments to `shared_expert`, at most one for each row, are not in `routed`.
  virtual void Collect(const gate::RoutedTokens& routed,
                       absl::Span<const Contribution> contributions, uint32_t shared_expert,
                       size_t d_model) = 0;

  // sum[r - range.first] = all that was contributed to row r, plus shared[r] when `shared` is not
  // null. Rows without a contribution start from 0. Thread-safe after Collect.
  //   shared  [rows of the batch, d_model] float32
  //   sum     [range.count, d_model] float32, overwritten
  virtual void Sum(RowRange range, const float* shared, float* sum) const = 0;

  virtual size_t MemoryBytes() const = 0;
};

// Stateless and thread-safe. One for all batches of a router.
class PartialsLayout {
 public:
  virtual ~PartialsLayout() = default;

  // Nodes are asked for a row for each assignment.
  virtual bool per_assignment() const = 0;
  // Rows that a node answers `plan` with.
  virtual uint32_t AnswerRows(const plan::NodePlan& plan) const = 0;
  // Appends `plan` to `pieces`, cut so that no answer has more than `limit` rows.
  virtual void Cut(plan::NodePlan plan, uint32_t limit, plan::NodePlanPool* pool,
                   std::vector<plan::NodePlan>* pieces) const = 0;
  // Position in plan.rows of the token that row `answered` of the answer is about.
  virtual size_t PositionOf(const plan::NodePlan& plan, uint32_t answered) const = 0;
  virtual std::unique_ptr<PartialsSum> NewSum() const = 0;
};

// A partial for each token row, summed in placement order: fewest bytes.
std::unique_ptr<const PartialsLayout> MakeRowPartials();

// A partial for each assignment, summed in slot order, those to one slot in order of slices, that
// of the shared experts last: the same bits whichever node contributed what, for top-k times the
// bytes.
std::unique_ptr<const PartialsLayout> MakeAssignmentPartials();

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_PARTIALS_LAYOUT_H_
