// Logs: one line each on stderr, by spdlog's default logger.
#ifndef EXPERTMESH_COMMON_TELEMETRY_LOGGING_H_
#define EXPERTMESH_COMMON_TELEMETRY_LOGGING_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/trace/trace_context.h"

namespace expertmesh::telemetry {

// Sets up spdlog's default logger: stderr, UTC time, level and `process` in each line. `level` is
// trace, debug, info, warning, error or off; `format` is text, where what was logged for a trace
// ends with " trace=" and its id, or json: an object in each line with ts, level, process, message,
// and trace_id and span_id where it was logged for a trace. INVALID_ARGUMENT otherwise. Its first
// line says which CPU this is, on which numbers and speed depend.
absl::Status InitLogging(absl::string_view process, absl::string_view level,
                         absl::string_view format = "text");

// Says on stderr why the program ends, in the format that was set up.
void ReportFailure(absl::string_view process, const absl::Status& why);

// While it lives, what this thread logs is for `trace`. They may be nested.
class LogTrace {
 public:
  explicit LogTrace(const trace::TraceContext& trace);
  ~LogTrace();
  LogTrace(const LogTrace&) = delete;
  LogTrace& operator=(const LogTrace&) = delete;

 private:
  const trace::TraceContext before_;
};

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_LOGGING_H_
