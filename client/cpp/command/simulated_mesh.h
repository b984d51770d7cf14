// Options that describe a mesh which is simulated, for the commands replay and plan.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_SIMULATED_MESH_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_SIMULATED_MESH_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cpp/command/options.h"
#include "client/cpp/replay/mesh_model.h"

namespace expertmesh::command {

// --assignment-us, --batch-us, --row-us and --hop-us; what is not given is as in ServiceTimes.
std::vector<OptionSpec> ServiceTimeOptions();
replay::ServiceTimes ServiceTimesOf(const Options& options);

// "3@600,7@15m" as nodes that fail or join at these times. INVALID_ARGUMENT names the part.
absl::StatusOr<std::vector<replay::MeshEvent>> ParseEvents(absl::string_view text,
                                                           replay::MeshEvent::Kind kind);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_SIMULATED_MESH_H_
