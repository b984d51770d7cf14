// Metrics: a prometheus-cpp registry and the HTTP endpoint that serves it.
//
// Rooms register their metrics once and keep references to what they touch on hot paths; all are
// thread-safe. Names: prefix expertmesh_, base units, promtool-clean.
#ifndef EXPERTMESH_COMMON_TELEMETRY_METRICS_H_
#define EXPERTMESH_COMMON_TELEMETRY_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/version.h"

namespace prometheus {
class Exposer;
}

namespace expertmesh::telemetry {

// A metric without labels, at 0. With these a class of metrics says in one place, the initialiser
// of the member, what the metric is. `registry` must outlive what they return.
prometheus::Counter& RegisterCounter(prometheus::Registry& registry, const char* name,
                                     const char* help);
prometheus::Gauge& RegisterGauge(prometheus::Registry& registry, const char* name,
                                 const char* help);
prometheus::Histogram& RegisterHistogram(prometheus::Registry& registry, const char* name,
                                         const char* help,
                                         const prometheus::Histogram::BucketBoundaries& bounds);

// With labels: each combination of their values is a series.
prometheus::Family<prometheus::Counter>& RegisterCounters(prometheus::Registry& registry,
                                                          const char* name, const char* help);
prometheus::Family<prometheus::Gauge>& RegisterGauges(prometheus::Registry& registry,
                                                      const char* name, const char* help);

// From 10 us to 10 s: an expert call takes well under a millisecond, a queue under overload
// seconds.
prometheus::Histogram::BucketBoundaries DurationBuckets();

// 1, 2, 4 ... 8192 rows.
prometheus::Histogram::BucketBoundaries RowBuckets();

// 1e-4 to 0.5: what rows lose by a narrower type, from f16 to far too much.
prometheus::Histogram::BucketBoundaries RelativeErrorBuckets();

// Registers expertmesh_build_info{process,version,commit,build_type} in `registry`.
void RegisterProcessMetrics(const std::string& process, const Version& version,
                            prometheus::Registry& registry);

// Serves GET /metrics until destroyed: `registry`, and what is read when scraped,
// expertmesh_process_resident_bytes, expertmesh_process_message_bytes_total{direction},
// expertmesh_process_tensor_copied_bytes_total, expertmesh_process_buffered_bytes,
// expertmesh_process_returned_bytes_total, expertmesh_process_connections and
// expertmesh_process_connections_refused_total{reason}.
// Thread-safe.
class MetricsServer {
 public:
  // `address` is host:port; port 0 picks a free one. `registry` is shared with the server.
  //   INVALID_ARGUMENT  not host:port.
  //   UNAVAILABLE       the address cannot be bound; the message names it.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(
      const std::string& address, std::shared_ptr<prometheus::Registry> registry);
  ~MetricsServer();

  int port() const { return port_; }

 private:
  MetricsServer(std::unique_ptr<prometheus::Exposer> exposer, std::string host, int port);

  std::unique_ptr<prometheus::Exposer> exposer_;
  const std::string host_;
  const int port_;
};

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_METRICS_H_
