#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

constexpr absl::Duration kPause = absl::Milliseconds(50);

bool Idle(const client::NodeInfo& node) {
  return node.batches_in_flight == 0 && node.rows_in_flight == 0;
}

// The node of `address`, until nothing is in flight to it any more, or `timeout` has passed.
// NOT_FOUND when it has left the mesh.
absl::StatusOr<client::NodeInfo> AwaitIdle(client::Client* mesh, const std::string& address,
                                           absl::Duration timeout) {
  const absl::Time deadline = Clock::Real()->Now() + timeout;
  while (true) {
    ASSIGN_OR_RETURN(const client::Topology topology, mesh->Topology());
    const client::NodeInfo* found = nullptr;
    for (const client::NodeInfo& node : topology.nodes) {
      if (node.address == address) {
        found = &node;
      }
    }
    if (found == nullptr) {
      return absl::NotFoundError(absl::StrCat(address, " has left the mesh"));
    }
    if (Idle(*found)) {
      return *found;
    }
    if (Clock::Real()->Now() + kPause > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          DescribeNode(*found), "; what no other ready node holds is still sent there"));
    }
    absl::SleepFor(kPause);
  }
}

absl::Status Run(const Options& options) {
  const bool resume = options.Has("resume");
  if (resume && options.Has("wait")) {
    return absl::InvalidArgumentError("--wait is for draining; leave it out with --resume");
  }
  const std::string& router = options.Text("router");
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  absl::StatusOr<client::NodeInfo> node = mesh->DrainNode(options.argument(), resume);
  if (node.ok() && options.Has("wait")) {
    node = AwaitIdle(mesh.get(), options.argument(), options.Duration("wait"));
  }
  if (!node.ok()) {
    return In(router, node.status());
  }
  std::printf("%s\n", DescribeNode(*node).c_str());
  return absl::OkStatus();
}

}  // namespace

Command DrainCommand() {
  return {{"drain",
           "Stops sending new batches to a node, or resumes it, and shows what is in flight there.",
           "NODE",
           WithRouter(
               {{.name = "resume", .kind = OptionKind::kSwitch, .help = "send to the node again"},
                {.name = "wait",
                 .kind = OptionKind::kDuration,
                 .value = "SECONDS",
                 .help = "wait until nothing is in flight, at most this long: exit status "
                         "1 when something still is"}})},
          &Run};
}

}  // namespace expertmesh::command
