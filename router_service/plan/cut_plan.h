// Plans in pieces: those whose answers have a row for each assignment, as a node takes them, and
// those some of whose rows must go apart.
#ifndef EXPERTMESH_ROUTER_SERVICE_PLAN_CUT_PLAN_H_
#define EXPERTMESH_ROUTER_SERVICE_PLAN_CUT_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "router_service/plan/planner.h"

namespace expertmesh::plan {

// Appends `plan` to `pieces`, in pieces of at most `limit` assignments each (0: no limit), in
// order. A row whose assignments are cut is in both pieces. Memory for them is from `pool`.
void CutToAssignments(NodePlan plan, uint32_t limit, NodePlanPool* pool,
                      std::vector<NodePlan>* pieces);

// Takes the rows `rows`, each of which is in `plan`, out of it; both ascend. Memory for the result
// is from `pool`.
NodePlan TakeRows(absl::Span<const uint32_t> rows, NodePlanPool* pool, NodePlan* plan);

}  // namespace expertmesh::plan

#endif  // EXPERTMESH_ROUTER_SERVICE_PLAN_CUT_PLAN_H_
