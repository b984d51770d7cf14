// What the planner refuses.
#ifndef EXPERTMESH_COMMON_BALANCE_PLANNING_INPUT_CHECK_H_
#define EXPERTMESH_COMMON_BALANCE_PLANNING_INPUT_CHECK_H_

#include "absl/status/status.h"
#include "common/balance/placement_planner.h"

namespace expertmesh::balance {

// INVALID_ARGUMENT naming the field, its value and what is accepted.
absl::Status CheckPlanningInput(const PlanningInput& input, const PlannerOptions& options);

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_PLANNING_INPUT_CHECK_H_
