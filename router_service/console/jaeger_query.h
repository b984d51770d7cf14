// Which traces are asked for at /api/traces.
#ifndef EXPERTMESH_ROUTER_SERVICE_CONSOLE_JAEGER_QUERY_H_
#define EXPERTMESH_ROUTER_SERVICE_CONSOLE_JAEGER_QUERY_H_

#include <cstddef>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/telemetry/http_server.h"
#include "common/trace/otlp.pb.h"

namespace expertmesh::console {

// What one span of a trace must have, all of it.
struct JaegerQuery {
  std::string service;
  // Empty: any.
  std::string operation;
  // Each is one of the span's own attributes or of its process.
  std::map<std::string, std::string> tags;
  absl::Time start = absl::InfinitePast();
  absl::Time end = absl::InfiniteFuture();
  absl::Duration shortest = absl::ZeroDuration();
  absl::Duration longest = absl::InfiniteDuration();
  size_t limit = 20;
};

// Reads ?service=&operation=&tags={"key":"value"}&start=&end= (microseconds since 1970)
// &minDuration=1.2ms&maxDuration=&limit=. INVALID_ARGUMENT names the parameter and what to use.
absl::StatusOr<JaegerQuery> ParseJaegerQuery(const telemetry::HttpRequest& request);

bool Matches(const JaegerQuery& query, const internal::otlp::TracesData& trace);

}  // namespace expertmesh::console

#endif  // EXPERTMESH_ROUTER_SERVICE_CONSOLE_JAEGER_QUERY_H_
