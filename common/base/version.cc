#include "common/base/version.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/base/cpu_features.h"
#include "expertmesh_commit.h"

namespace expertmesh {

const Version& ProgramVersion() {
  static const Version version = {EXPERTMESH_VERSION, EXPERTMESH_COMMIT, EXPERTMESH_BUILD_TYPE};
  return version;
}

std::string VersionLine() {
  return absl::StrCat(program_invocation_short_name, " ", ProgramVersion().Text(),
                      ", instruction sets up to ", NameOf(UsableCpuIsa()), "\n");
}

}  // namespace expertmesh
