#include "common/experts/backend_factory.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/experts/cpu_backend.h"

namespace expertmesh::experts {
namespace {

struct BackendEntry {
  absl::string_view name;
  absl::StatusOr<std::unique_ptr<Backend>> (*make)(const BackendOptions& options);
};

constexpr BackendEntry kBackends[] = {
    {"cpu",
     [](const BackendOptions& options) { return MakeCpuBackend(CpuBackendOptions{options}); }},
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(absl::string_view name,
                                                     const BackendOptions& options) {
  for (const BackendEntry& entry : kBackends) {
    if (entry.name == name) {
      return entry.make(options);
    }
  }
  const auto append_name = [](std::string* out, const BackendEntry& entry) {
    absl::StrAppend(out, entry.name);
  };
  return absl::InvalidArgumentError(absl::StrCat("there is no backend '", name,
                                                 "'; this build has ",
                                                 absl::StrJoin(kBackends, ", ", append_name)));
}

}  // namespace expertmesh::experts
