// What Control answers, as JSON under /api/v1/.
#ifndef EXPERTMESH_ROUTER_SERVICE_CONSOLE_CONTROL_PAGES_H_
#define EXPERTMESH_ROUTER_SERVICE_CONSOLE_CONTROL_PAGES_H_

#include "common/telemetry/http_server.h"
#include "router_service/serve/router_server.h"

namespace expertmesh::console {

// topology, model, balance, bias?epoch=, placement, load?scope=&window_ms=, traces?order=&limit=,
// and traces/ID, which is OTLP/JSON. `router`, and what it points to, must outlive `server`.
void AddControlPages(const serve::ServedRouter* router, telemetry::HttpServer* server);

}  // namespace expertmesh::console

#endif  // EXPERTMESH_ROUTER_SERVICE_CONSOLE_CONTROL_PAGES_H_
