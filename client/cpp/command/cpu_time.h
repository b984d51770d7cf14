// CPU time of processes.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_CPU_TIME_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_CPU_TIME_H_

#include <sys/types.h>

#include <vector>

#include "absl/status/statusor.h"

namespace expertmesh::command {

// Seconds of user and system time that this process and `others`, all threads, have used so far.
// NOT_FOUND when one of them does not run.
absl::StatusOr<double> CpuSeconds(const std::vector<pid_t>& others);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_CPU_TIME_H_
