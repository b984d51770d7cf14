// Requests that went wrong, in the log: where that has no dashboard beside it, it leads to the
// trace.
#ifndef EXPERTMESH_ROUTER_SERVICE_TRACING_REQUEST_LOG_H_
#define EXPERTMESH_ROUTER_SERVICE_TRACING_REQUEST_LOG_H_

#include "common/base/clock.h"
#include "common/base/log_limit.h"
#include "router_service/tracing/trace_record.h"

namespace expertmesh::tracing {

// Thread-safe.
class RequestLog {
 public:
  // `clock` must outlive it.
  explicit RequestLog(Clock* clock) : limit_(kInterval, clock) {}

  // A line for each request that failed and not by its caller's fault, or was kept for being slow,
  // with its trace; a few a second.
  void Add(const TraceRecord& record);

 private:
  static constexpr absl::Duration kInterval = absl::Milliseconds(250);

  LogLimit limit_;
};

}  // namespace expertmesh::tracing

#endif  // EXPERTMESH_ROUTER_SERVICE_TRACING_REQUEST_LOG_H_
