#include <cstdio>
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

constexpr char kBalance[] = "expertmesh.balance";

// Why `what` is not ready, as far as it tells.
absl::Status NotReady(client::Client* mesh, const std::string& service, const std::string& what) {
  const absl::StatusOr<client::Topology> topology = mesh->Topology();
  // A node has no topology to show.
  if (topology.ok() && service == kBalance) {
    return absl::UnavailableError(
        absl::StrCat(what, " is NOT_SERVING: ", topology->balance.reason));
  }
  if (topology.ok() && !topology->missing.empty()) {
    return absl::UnavailableError(absl::StrCat(what, " is NOT_SERVING; no ready node holds ",
                                               DescribeMissing(topology->missing)));
  }
  return absl::UnavailableError(absl::StrCat(what, " is NOT_SERVING"));
}

absl::Status Run(const Options& options) {
  const std::string& address = options.Text("router");
  const std::string service = options.Has("service") ? options.Text("service") : "";
  const std::string what = service.empty() ? address : absl::StrCat(address, " ", service);
  const absl::Duration wait = options.Has("wait") ? options.Duration("wait") : absl::ZeroDuration();
  const absl::Time deadline = Clock::Real()->Now() + wait;
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> mesh, Connect(options));
  while (true) {
    const absl::StatusOr<bool> serving = mesh->Health(service);
    if (serving.ok() && *serving) {
      std::printf("%s: SERVING\n", what.c_str());
      return absl::OkStatus();
    }
    if (Clock::Real()->Now() + kPause > deadline) {
      return serving.ok() ? NotReady(mesh.get(), service, what) : In(what, serving.status());
    }
    absl::SleepFor(kPause);
  }
}

}  // namespace

Command HealthCommand() {
  return {
      {"health",
       "Whether a router, or a node (its address as --router), is ready: exit status 0 when it is "
       "SERVING.",
       "",
       WithRouter({{.name = "wait",
                    .kind = OptionKind::kDuration,
                    .value = "SECONDS",
                    .help = "wait until it is ready, at most this long"},
                   {.name = "service",
                    .value = "NAME",
                    .help = "service to ask for; the whole process when not given"}})},
      &Run};
}

}  // namespace expertmesh::command
