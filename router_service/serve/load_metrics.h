// Load, layer by layer and expert by expert: as metrics, and as a table of all of it.
#ifndef EXPERTMESH_ROUTER_SERVICE_SERVE_LOAD_METRICS_H_
#define EXPERTMESH_ROUTER_SERVICE_SERVE_LOAD_METRICS_H_

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/telemetry/expert_series.h"
#include "common/telemetry/http_server.h"
#include "expertmesh/v1/control.pb.h"
#include "router_service/balance/controller.h"
#include "router_service/balance/load_counts.h"

namespace expertmesh::serve {

// What this router has counted, read at each scrape: exact by layer, and of the experts those that
// `options` let through. Thread-safe.
class LoadMetrics final : public prometheus::Collectable {
 public:
  // `read` is called by any thread; what it uses, and `clock`, must outlive this.
  LoadMetrics(std::function<balance_control::LoadCounts()> read,
              const telemetry::ExpertMetricsOptions& options, Clock* clock);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::function<balance_control::LoadCounts()> read_;
  mutable telemetry::ExpertSeries experts_;
};

// What the query of a page of load asks for: ?scope=mesh (as where there is none) or router, and
// ?window_ms= as GetLoadRequest.window_ms. INVALID_ARGUMENT says what to use.
absl::StatusOr<v1::GetLoadRequest> LoadRequestOf(const telemetry::HttpRequest& request);

// Serves the whole matrix layer x expert as /load.json and /load.csv, with a query as LoadRequestOf
// reads it. `controller` must outlive `server`.
void AddLoadPages(balance_control::Controller* controller, telemetry::HttpServer* server);

}  // namespace expertmesh::serve

#endif  // EXPERTMESH_ROUTER_SERVICE_SERVE_LOAD_METRICS_H_
