// Logs: one line each on stderr, by spdlog's default logger.
#ifndef EXPERTMESH_COMMON_TELEMETRY_LOGGING_H_
#define EXPERTMESH_COMMON_TELEMETRY_LOGGING_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace expertmesh::telemetry {

// Sets up spdlog's default logger: stderr, UTC time, level and `process` in each line. `level` is
// trace, debug, info, warning, error or off; INVALID_ARGUMENT otherwise. Its first line says which
// CPU this is, on which numbers and speed depend.
absl::Status InitLogging(absl::string_view process, absl::string_view level);

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_LOGGING_H_
