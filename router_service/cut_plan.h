// Plans whose answers have a row for each assignment, in pieces that a node takes.
#ifndef EXPERTMESH_ROUTER_SERVICE_CUT_PLAN_H_
#define EXPERTMESH_ROUTER_SERVICE_CUT_PLAN_H_

#include <cstdint>
#include <vector>

#include "router_service/planner.h"

namespace expertmesh {

// Appends `plan` to `pieces`, in pieces of at most `limit` assignments each (0: no limit), in
// order. A row whose assignments are cut is in both pieces. Memory for them is from `pool`.
void CutToAssignments(NodePlan plan, uint32_t limit, NodePlanPool* pool,
                      std::vector<NodePlan>* pieces);

}  // namespace expertmesh

#endif  // EXPERTMESH_ROUTER_SERVICE_CUT_PLAN_H_
