// The spans of one batch:
//
//   expertmesh.v1.Router/Forward        of each kept request, under its caller's span
//     expertmesh.dispatch               from leaving the queue to the last partial
//       expertmesh.internal.v1.Expert/Compute   one for each call of a node: under the first kept
//         expertmesh.internal.v1.Expert/Compute   request; the node's own span
//           expertmesh.node.queue, expertmesh.node.compute
//   expertmesh.batch                    a trace of its own, where a batch has several requests:
//   linked
//                                       to the dispatch span of each kept one, and they to it
//
// Every span of a batch has its id as expertmesh.batch.id, for viewers that know no links: it is
// the id of the batch's trace, or, when it has one request, of that request's.
#ifndef EXPERTMESH_ROUTER_SERVICE_TRACING_SPANS_OF_BATCH_H_
#define EXPERTMESH_ROUTER_SERVICE_TRACING_SPANS_OF_BATCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/trace/resource.h"
#include "common/trace/span_sink.h"
#include "common/trace/trace_context.h"
#include "router_service/tracing/trace_record.h"

namespace expertmesh::tracing {

// As many links has a batch at most, as OpenTelemetry's limits say; it tells how many it lacks.
inline constexpr size_t kMostLinks = 128;

// A trace in one line. Times are of the calendar.
struct TraceLine {
  trace::TraceId id;
  // What the router's first span is called; lives for ever.
  absl::string_view name;
  absl::Time start;
  absl::Duration duration;
  uint32_t layer = 0;
  uint64_t tokens = 0;
  absl::StatusCode code = absl::StatusCode::kOk;
  Keep keep = Keep::kNo;
  uint32_t spans = 0;
};

// The spans of one request, or of one batch.
struct TraceSpans {
  trace::TraceId id;
  std::vector<trace::SpanGroup> groups;
};

// A server's span fails for what the server did wrong, not its caller.
bool IsServersFault(absl::StatusCode code);

// One entry for each kept request, and one for the batch if that has several. `router`: the
// resource of this process.
std::vector<TraceSpans> SpansOfBatch(const TraceRecord& record, const trace::ResourcePtr& router);
std::vector<TraceLine> LinesOf(const TraceRecord& record);
// How many spans that are.
uint64_t SpansIn(const TraceRecord& record);

}  // namespace expertmesh::tracing

#endif  // EXPERTMESH_ROUTER_SERVICE_TRACING_SPANS_OF_BATCH_H_
