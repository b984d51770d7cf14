// The load that `expertmesh replay` runs, and options that say which.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_REPLAYED_LOAD_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_REPLAYED_LOAD_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/command/options.h"
#include "client/cpp/replay/load_source.h"

namespace expertmesh::command {

// A load, and what its experts take on a node, by layer.
struct ReplayedLoad {
  std::unique_ptr<replay::LoadSource> load;
  std::vector<uint64_t> expert_bytes;
};

// --recording, --load, --model and what belongs to them.
std::vector<OptionSpec> ReplayedLoadOptions();

// INVALID_ARGUMENT names the option, its value and what is accepted; errors of reading a model or a
// recording are as they are there.
absl::StatusOr<ReplayedLoad> OpenReplayedLoad(const Options& options);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_REPLAYED_LOAD_H_
