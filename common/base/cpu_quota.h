// CPU time that control groups allow this process.
#ifndef EXPERTMESH_COMMON_BASE_CPU_QUOTA_H_
#define EXPERTMESH_COMMON_BASE_CPU_QUOTA_H_

#include <optional>
#include <string>

namespace expertmesh {

// How many cores' worth of time this process gets: the least quota of its groups and of those that
// they lie in, of cgroups version 1 and 2. Nothing when there is none, or nobody can tell.
//
// Reads /proc/self/cgroup, /proc/self/mountinfo and the files of the groups, below `root`.
std::optional<double> CpuQuota(const std::string& root = "");

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_CPU_QUOTA_H_
