// A trace as text: its spans as a tree, each with where it lies in time.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_TRACE_REPORT_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_TRACE_REPORT_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "client/cpp/expertmesh/client.h"
#include "common/trace/otlp.pb.h"

namespace expertmesh::command {

// A line for each span, children below their parents by their start:
//
//   ms from start, ms long, a bar from start to end, name, process, what is worth knowing
//
// and one for each trace that is linked, with the command that shows it. Spans whose parent is of a
// process that sends its spans elsewhere come first.
std::string DescribeTrace(const internal::otlp::TracesData& data);

// A line for each trace.
std::string DescribeTraces(absl::Span<const client::TraceSummary> traces);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_TRACE_REPORT_H_
