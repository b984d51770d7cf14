#include "common/base/usage.h"

#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "common/base/version.h"

namespace expertmesh {

void DescribeProgram(absl::string_view usage) {
  absl::SetProgramUsageMessage(usage);
  absl::FlagsUsageConfig config;
  config.contains_help_flags = [](absl::string_view file) {
    return absl::EndsWith(file, "/main.cc");
  };
  config.version_string = [] { return VersionLine(); };
  absl::SetFlagsUsageConfig(config);
}

}  // namespace expertmesh
