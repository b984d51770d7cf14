// Metrics: a prometheus-cpp registry and the HTTP endpoint that serves it.
//
// A metric is an entry of a table (metric_info.h). Rooms register theirs once and keep references
// to what they touch on hot paths; all are thread-safe. Names: prefix expertmesh_, base units,
// promtool-clean.
#ifndef EXPERTMESH_COMMON_TELEMETRY_METRICS_H_
#define EXPERTMESH_COMMON_TELEMETRY_METRICS_H_

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/labels.h>
#include <prometheus/metric_family.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/base/version.h"
#include "common/telemetry/exemplars.h"
#include "common/telemetry/histogram.h"
#include "common/telemetry/http_server.h"
#include "common/telemetry/metric_info.h"

namespace expertmesh::telemetry {

// A metric without labels, at 0. `info` is of a table; `registry` must outlive what they return.
prometheus::Counter& RegisterCounter(prometheus::Registry& registry, const CounterInfo& info);
prometheus::Gauge& RegisterGauge(prometheus::Registry& registry, const GaugeInfo& info);
Histogram RegisterHistogram(prometheus::Registry& registry, const HistogramInfo& info,
                            const prometheus::Histogram::BucketBoundaries& bounds);
// `exemplars` must outlive it, too.
TracedHistogram RegisterTracedHistogram(prometheus::Registry& registry, Exemplars* exemplars,
                                        const HistogramInfo& info,
                                        const prometheus::Histogram::BucketBoundaries& bounds);

// With labels: each combination of their values is a series.
prometheus::Family<prometheus::Counter>& RegisterCounters(prometheus::Registry& registry,
                                                          const CounterInfo& info);
prometheus::Family<prometheus::Gauge>& RegisterGauges(prometheus::Registry& registry,
                                                      const GaugeInfo& info);
prometheus::Family<prometheus::Histogram>& RegisterHistograms(prometheus::Registry& registry,
                                                              const HistogramInfo& info);

// One series of a family of `info`; the same for everyone who asks with the same labels.
TracedHistogram AddTraced(prometheus::Family<prometheus::Histogram>& family, Exemplars* exemplars,
                          const HistogramInfo& info, const prometheus::Labels& labels,
                          const prometheus::Histogram::BucketBoundaries& bounds);

// For a Collectable: a family without a series yet, and a series of it.
prometheus::MetricFamily FamilyOf(const CounterInfo& info);
void AddCounter(double value, const prometheus::Labels& labels, prometheus::MetricFamily* family);
// A family of one series without labels.
prometheus::MetricFamily GaugeOf(const GaugeInfo& info, double value);

// From 10 us to 10 s: an expert call takes well under a millisecond, a queue under overload
// seconds.
prometheus::Histogram::BucketBoundaries DurationBuckets();

// From 10 ms to an hour: what loading takes.
prometheus::Histogram::BucketBoundaries LoadBuckets();

// 1, 2, 4 ... 8192 rows.
prometheus::Histogram::BucketBoundaries RowBuckets();

// 1e-4 to 0.5: what rows lose by a narrower type, from f16 to far too much.
prometheus::Histogram::BucketBoundaries RelativeErrorBuckets();

// Registers expertmesh_build_info{process,version,commit,build_type} in `registry`.
void RegisterProcessMetrics(const std::string& process, const Version& version,
                            prometheus::Registry& registry);

// Serves GET /metrics until destroyed: what was added to it, and what is read when it is scraped,
// expertmesh_process_*. Text, or OpenMetrics with exemplars, as the Accept header wants it.
// Thread-safe.
class MetricsServer {
 public:
  // As HttpServer::Start; `registry` is the first that is added.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(
      const std::string& address, std::shared_ptr<prometheus::Registry> registry);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  // Asked at every scrape, by several threads. What it uses must outlive this.
  void Add(std::shared_ptr<const prometheus::Collectable> collectable);
  // Those of some histograms among what was added. Must outlive this.
  void AddExemplars(const Exemplars* exemplars);

  // For more paths on the same port.
  HttpServer& http() { return *http_; }
  int port() const { return http_->port(); }

 private:
  explicit MetricsServer(std::unique_ptr<HttpServer> http);
  HttpResponse Serve(const HttpRequest& request) const;

  mutable absl::Mutex mutex_;
  std::vector<std::shared_ptr<const prometheus::Collectable>> collectables_ ABSL_GUARDED_BY(mutex_);
  std::vector<const Exemplars*> exemplars_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<HttpServer> http_;
};

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_METRICS_H_
