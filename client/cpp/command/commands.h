// The commands of `expertmesh`, one file each.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_COMMANDS_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_COMMANDS_H_

#include "absl/status/status.h"
#include "client/cpp/command/options.h"

namespace expertmesh::command {

struct Command {
  CommandSpec spec;
  // Results go to stdout. An error is printed by the caller.
  absl::Status (*run)(const Options& options);
};

Command HealthCommand();
Command TopologyCommand();
Command ForwardCommand();
Command CheckpointMakeCommand();
Command CheckpointInspectCommand();
Command VerifyCommand();
Command BenchCommand();
Command DemoCommand();
Command GenerateCommand();
Command EvaluateCommand();

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_COMMANDS_H_
