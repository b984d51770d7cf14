// What a plan of a layer is written as: its copies, the moves that lead to it, and why.
#ifndef EXPERTMESH_COMMON_BALANCE_PLAN_MOVES_H_
#define EXPERTMESH_COMMON_BALANCE_PLAN_MOVES_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "common/balance/layer_copies.h"
#include "common/balance/placement_planner.h"

namespace expertmesh::balance {

// A copy that a node holds, and its share under the present plan.
struct HeldCopy {
  uint32_t expert = 0;
  uint32_t node = 0;
  float share = 0;
};

LayerPlacement PlacementOf(uint32_t layer, const LayerCopies& copies);
// `held`: by expert, then node.
LayerPlacement PlacementOf(uint32_t layer, uint32_t experts, absl::Span<const HeldCopy> held);

// Adds the moves from `held` to `planned`, and their bytes, to `result`: a copy that is freed goes
// with one of its expert that is loaded, as far as there are both. `position`: of the layer in the
// input; `held` by expert, then node.
void AppendMoves(size_t position, uint64_t expert_bytes, absl::Span<const double> loads,
                 absl::Span<const HeldCopy> held, const LayerPlacement& planned,
                 PlanningResult* result);

// The reason of `result`, which is complete but for it. `kept_gain`: by how much the fullest node
// of layer `kept_layer` (a position) could be lower, the most of those that keep their plan.
std::string ReasonFor(const PlanningResult& result, double hysteresis, double kept_gain,
                      size_t kept_layer);

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_PLAN_MOVES_H_
