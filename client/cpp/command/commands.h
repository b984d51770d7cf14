// The commands of `expertmesh`. Each is one file that defines a function <Name>Command(), and one
// name in CMakeLists.txt.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_COMMANDS_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_COMMANDS_H_

#include <vector>

#include "absl/status/status.h"
#include "client/cpp/command/options.h"

namespace expertmesh::command {

struct Command {
  CommandSpec spec;
  // Results go to stdout. An error is printed by the caller.
  absl::Status (*run)(const Options& options);
};

// In the order of CMakeLists.txt; CMake writes this function.
std::vector<Command> AllCommands();

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_COMMANDS_H_
