// A plan of copies in a file of JSON: {"outline": ..., "nodes": [...], "layers": [{"layer": ...,
// "copies_per_expert": [...], "copy_nodes": [...], "copy_shares": [...]}, ...]}, as
// proto/expertmesh/v1/placement.proto has them.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_PLAN_FILE_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_PLAN_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/expertmesh/client.h"
#include "nlohmann/json_fwd.hpp"

namespace expertmesh::command {

// "nodes" and "layers".
nlohmann::json PlanJson(const client::PlacementPlan& plan);

// The file is whole or not there. `outline`: of the model that the plan is for.
absl::Status WritePlan(const std::string& path, const std::string& outline,
                       const client::PlacementPlan& plan);

// A plan for the model of `outline`; what is in it fits together, whatever the model's layers are.
// Errors name the file and the place in it.
//   NOT_FOUND            there is no such file.
//   INVALID_ARGUMENT     it holds no plan: it is cut off, of another kind, or contradicts itself.
//   FAILED_PRECONDITION  it is for another model.
absl::StatusOr<client::PlacementPlan> ReadPlan(const std::string& path, const std::string& outline);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_PLAN_FILE_H_
