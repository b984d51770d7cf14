// `expertmesh replay --cache`: policies of an expert cache on recorded traffic.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_REPLAY_CACHE_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_REPLAY_CACHE_H_

#include <vector>

#include "absl/status/status.h"
#include "client/cpp/command/options.h"
#include "client/cpp/command/replayed_load.h"

namespace expertmesh::command {

std::vector<OptionSpec> CacheOptions();

// Compares the policies at the sizes of --cache, and prints a table. `opened` is of the same
// options.
absl::Status ReplayCaches(const Options& options, const ReplayedLoad& opened);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_REPLAY_CACHE_H_
