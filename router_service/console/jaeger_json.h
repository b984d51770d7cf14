// Traces in the JSON of Jaeger's query API, which Jaeger's own page and Grafana read.
#ifndef EXPERTMESH_ROUTER_SERVICE_CONSOLE_JAEGER_JSON_H_
#define EXPERTMESH_ROUTER_SERVICE_CONSOLE_JAEGER_JSON_H_

#include <string>
#include <vector>

#include "common/trace/otlp.pb.h"
#include "nlohmann/json.hpp"

namespace expertmesh::console {

// A span's links are references FOLLOWS_FROM, which have no attributes there. Times are in
// microseconds.
nlohmann::json ToJaegerTrace(const internal::otlp::TracesData& data);

// [{"parent", "child", "callCount"}]: from whose spans to whose spans calls went, counted in all of
// `traces`.
nlohmann::json ToJaegerDependencies(const std::vector<internal::otlp::TracesData>& traces);

// The service.name of a process.
std::string ServiceOf(const internal::otlp::ResourceSpans& process);
// As Jaeger calls it: "server", "client", "internal", "" for none.
std::string KindOf(const internal::otlp::Span& span);
// As text, which is how tags are searched for.
std::string TextOf(const internal::otlp::AnyValue& value);

}  // namespace expertmesh::console

#endif  // EXPERTMESH_ROUTER_SERVICE_CONSOLE_JAEGER_JSON_H_
