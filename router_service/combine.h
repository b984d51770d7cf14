// The weighted sum of a batch from the partials of its nodes, in a fixed order.
#ifndef EXPERTMESH_ROUTER_SERVICE_COMBINE_H_
#define EXPERTMESH_ROUTER_SERVICE_COMBINE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/tensor/dtype.h"
#include "router_service/gate/routed_tokens.h"
#include "router_service/placement.h"
#include "router_service/planner.h"

namespace expertmesh {

// What one node contributed: partials [rows.size(), d_model] for these rows of the batch.
struct Contribution {
  absl::Span<const uint32_t> rows;
  const float* partials = nullptr;
};

// output[r] = sum of the contributions to row r, in the order given, plus shared[r] when `shared`
// is not null. Rows without a contribution start from 0. All [rows, d_model] float32; `output` is
// overwritten.
void Combine(absl::Span<const Contribution> contributions, const float* shared, size_t rows,
             size_t d_model, float* output);

// What one node contributed when it was asked for a row per assignment.
struct AssignmentContribution {
  const NodePlan* plan = nullptr;
  // [num_experts] Of the placement that `plan` was made for: which slice of an expert the node has.
  const std::vector<ExpertReplicas>* replicas = nullptr;
  // [assignments of the plan, d_model]
  const float* partials = nullptr;
};

// output[r] = sum of the contributions to row r in slot order, those to one slot in order of
// slices, plus shared[r] when `shared` is not null: the same bits whichever node contributed what,
// and in whatever order the contributions come. All [routed.tokens(), d_model] float32; `output` is
// overwritten.
//   routed  has every assignment of every plan; those that nobody contributed to are left out
void CombineInSlotOrder(const RoutedTokens& routed,
                        absl::Span<const AssignmentContribution> contributions, const float* shared,
                        size_t d_model, float* output);

// PassThrough::kComplement: adds (1 - sum of its weights) times the hidden state to every row.
//   routed         the rows' assignments
//   hidden_states  [rows, d_model] of `dtype`, an activation type
//   output         [rows, d_model] float32, in place
void AddComplements(const RoutedTokens& routed, const void* hidden_states, DType dtype,
                    size_t d_model, float* output);

}  // namespace expertmesh

#endif  // EXPERTMESH_ROUTER_SERVICE_COMBINE_H_
