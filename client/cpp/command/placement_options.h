// Options of those commands that plan copies, or change how they are planned.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_PLACEMENT_OPTIONS_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_PLACEMENT_OPTIONS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/command/options.h"
#include "client/cpp/expertmesh/control.h"

namespace expertmesh::command {

// --min-copies, --max-copies, --hysteresis, --byte-budget, --min-tokens, and then `more`.
std::vector<OptionSpec> WithPlanning(std::vector<OptionSpec> more);

// What those say; INVALID_ARGUMENT names the option whose value is too large, or is no size.
absl::StatusOr<client::PlacementChange> ReadPlanning(const Options& options);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_PLACEMENT_OPTIONS_H_
