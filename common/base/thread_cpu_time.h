// How much of the CPU a thread has used.
#ifndef EXPERTMESH_COMMON_BASE_THREAD_CPU_TIME_H_
#define EXPERTMESH_COMMON_BASE_THREAD_CPU_TIME_H_

#include "absl/time/time.h"

namespace expertmesh {

// CPU time of the calling thread since it began: neither what it waited for a CPU nor for a disk.
absl::Duration ThreadCpuTime();

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_THREAD_CPU_TIME_H_
