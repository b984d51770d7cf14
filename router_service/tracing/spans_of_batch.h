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

#include <vector>

#include "absl/time/time.h"
#include "common/trace/resource.h"
#include "router_service/tracing/trace_record.h"
#include "router_service/tracing/trace_store.h"

namespace expertmesh::tracing {

// As many links has a batch at most, as OpenTelemetry's limits say; it tells how many it lacks.
inline constexpr size_t kMostLinks = 128;

// One entry for each kept request, and one for the batch. `router` is the resource of this process; `to_calendar`
// is added to times of the router's clock.
std::vector<TraceSpans> SpansOfBatch(const TraceRecord& record, const trace::ResourcePtr& router,
                                     absl::Duration to_calendar);

}  // namespace expertmesh::tracing

#endif  // EXPERTMESH_ROUTER_SERVICE_TRACING_SPANS_OF_BATCH_H_
