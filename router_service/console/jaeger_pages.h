// The traces that the router keeps, under the paths of Jaeger's query API, so that Jaeger's page
// and Grafana's data source of type jaeger can be pointed at a router.
#ifndef EXPERTMESH_ROUTER_SERVICE_CONSOLE_JAEGER_PAGES_H_
#define EXPERTMESH_ROUTER_SERVICE_CONSOLE_JAEGER_PAGES_H_

#include "common/telemetry/http_server.h"
#include "router_service/tracing/tracer.h"

namespace expertmesh::console {

// /api/services, /api/services/NAME/operations, /api/operations?service=, /api/traces?...,
// /api/traces/ID, /api/dependencies. `tracer` (null while the router does not trace) must outlive
// `server`.
void AddJaegerPages(tracing::Tracer* tracer, telemetry::HttpServer* server);

}  // namespace expertmesh::console

#endif  // EXPERTMESH_ROUTER_SERVICE_CONSOLE_JAEGER_PAGES_H_
