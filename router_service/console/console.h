// A page that shows the mesh, its load and its traces, on the same port as the metrics, with what
// it is made of as JSON. It only reads.
#ifndef EXPERTMESH_ROUTER_SERVICE_CONSOLE_CONSOLE_H_
#define EXPERTMESH_ROUTER_SERVICE_CONSOLE_CONSOLE_H_

#include <cstdint>
#include <vector>

#include "common/telemetry/http_server.h"
#include "router_service/console/epoch_history.h"
#include "router_service/serve/router_server.h"

namespace expertmesh::console {

// Thread-safe.
class Console {
 public:
  // What `router` points to must outlive the console, which begins to remember epochs.
  explicit Console(serve::ServedRouter router);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // The page at / and /console/, JSON at /api/v1/, and what Jaeger's own page and Grafana ask a
  // Jaeger for at /api/. `server` must not outlive the console.
  void AddTo(telemetry::HttpServer* server) const;

 private:
  // From any thread, one at a time.
  void Observe();

  const serve::ServedRouter router_;
  const std::vector<uint32_t> layers_;
  EpochHistory history_;
  uint64_t subscription_ = 0;
};

}  // namespace expertmesh::console

#endif  // EXPERTMESH_ROUTER_SERVICE_CONSOLE_CONSOLE_H_
