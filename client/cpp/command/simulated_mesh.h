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

// An option for each of ServiceTimes: --assignment-us and so on.
std::vector<OptionSpec> ServiceTimeOptions();
// What is not given is as in ServiceTimes.
replay::ServiceTimes ServiceTimesOf(const Options& options);
bool HasServiceTimes(const Options& options);
// "--hop-us 150 --token-us 0.3 ...": the options that give these times.
std::string FormatServiceTimes(replay::ServiceTimes times);

// "3@600,7@15m" as nodes that fail or join at these times. INVALID_ARGUMENT names the part.
absl::StatusOr<std::vector<replay::MeshEvent>> ParseEvents(absl::string_view text,
                                                           replay::MeshEvent::Kind kind);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_SIMULATED_MESH_H_
