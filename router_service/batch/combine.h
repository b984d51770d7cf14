// The weighted sum of a batch from the partials of its nodes, in a fixed order.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_COMBINE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_COMBINE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/gate/routed_tokens.h"
#include "common/tensor/dtype.h"
#include "router_service/mesh/placement.h"
#include "router_service/plan/planner.h"

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
  DType dtype = DType::kF32;
};

// What one node contributed: partials [rows.size(), d_model] for these rows of the batch, which
// ascend.
struct Contribution {
  absl::Span<const uint32_t> rows;
  Partials partials;
};

// output[r - range.first] = sum of the contributions to row r, in the order given, plus shared[r]
// when `shared` is not null. Rows without a contribution start from 0.
//   shared  [rows of the batch, d_model] float32
//   output  [range.count, d_model] float32, overwritten
void Combine(absl::Span<const Contribution> contributions, const float* shared, RowRange range,
             size_t d_model, float* output);

// What one node contributed when it was asked for a row per assignment.
struct AssignmentContribution {
  const plan::NodePlan* plan = nullptr;
  // [num_experts] Of the placement that `plan` was made for: which slice of an expert the node has.
  const std::vector<mesh::ExpertReplicas>* replicas = nullptr;
  // [assignments of the plan, d_model]
  Partials partials;
};

// Where the partials of each slot of a batch are.
struct SlotPartials {
  // Most that an expert lies in.
  size_t slices = 1;
  // [assignments of the batch, slices], without data where there are none.
  std::vector<Partials> of_slot;
};

// `routed` has every assignment of every plan. Overwrites `found`, which may keep its memory.
void FindSlotPartials(const gate::RoutedTokens& routed,
                      absl::Span<const AssignmentContribution> contributions, size_t d_model,
                      SlotPartials* found);

// The same as Combine, in slot order, those to one slot in order of slices: the same bits whichever
// node contributed what, and in whatever order the contributions came. Slots that nobody
// contributed to are left out.
void CombineInSlotOrder(const gate::RoutedTokens& routed, const SlotPartials& partials,
                        const float* shared, RowRange range, size_t d_model, float* output);

// PassThrough::kComplement: adds (1 - sum of its weights) times the hidden state to every row.
//   hidden_states  [rows of the batch, d_model] of `dtype`, an activation type
//   output         [range.count, d_model] float32, in place
void AddComplements(const gate::RoutedTokens& routed, const void* hidden_states, DType dtype,
                    RowRange range, size_t d_model, float* output);

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_COMBINE_H_
