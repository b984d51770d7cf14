#include "common/telemetry/metrics.h"

#include <prometheus/client_metric.h>

#include <cstdint>
#include <utility>

#include "common/base/connection_counts.h"
#include "common/base/idle_memory.h"
#include "common/base/message_bytes.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/telemetry/exposition.h"
#include "common/telemetry/metric_table.h"

namespace expertmesh::telemetry {

prometheus::Counter& RegisterCounter(prometheus::Registry& registry, const CounterInfo& info) {
  return RegisterCounters(registry, info).Add({});
}

prometheus::Gauge& RegisterGauge(prometheus::Registry& registry, const GaugeInfo& info) {
  return RegisterGauges(registry, info).Add({});
}

Histogram RegisterHistogram(prometheus::Registry& registry, const HistogramInfo& info,
                            const prometheus::Histogram::BucketBoundaries& bounds) {
  return Histogram(&RegisterHistograms(registry, info).Add({}, bounds));
}

TracedHistogram RegisterTracedHistogram(prometheus::Registry& registry, Exemplars* exemplars,
                                        const HistogramInfo& info,
                                        const prometheus::Histogram::BucketBoundaries& bounds) {
  return AddTraced(RegisterHistograms(registry, info), exemplars, info, {}, bounds);
}

prometheus::Family<prometheus::Counter>& RegisterCounters(prometheus::Registry& registry,
                                                          const CounterInfo& info) {
  return prometheus::BuildCounter().Name(info.name).Help(info.help).Register(registry);
}

prometheus::Family<prometheus::Gauge>& RegisterGauges(prometheus::Registry& registry,
                                                      const GaugeInfo& info) {
  return prometheus::BuildGauge().Name(info.name).Help(info.help).Register(registry);
}

prometheus::Family<prometheus::Histogram>& RegisterHistograms(prometheus::Registry& registry,
                                                              const HistogramInfo& info) {
  return prometheus::BuildHistogram().Name(info.name).Help(info.help).Register(registry);
}

TracedHistogram AddTraced(prometheus::Family<prometheus::Histogram>& family, Exemplars* exemplars,
                          const HistogramInfo& info, const prometheus::Labels& labels,
                          const prometheus::Histogram::BucketBoundaries& bounds) {
  return {Histogram(&family.Add(labels, bounds)), exemplars->Add(info.name, labels, bounds)};
}

prometheus::MetricFamily FamilyOf(const CounterInfo& info) {
  prometheus::MetricFamily family;
  family.name = info.name;
  family.help = info.help;
  family.type = prometheus::MetricType::Counter;
  return family;
}

prometheus::MetricFamily GaugeOf(const GaugeInfo& info, double value) {
  prometheus::MetricFamily family;
  family.name = info.name;
  family.help = info.help;
  family.type = prometheus::MetricType::Gauge;
  prometheus::ClientMetric metric;
  metric.gauge.value = value;
  family.metric.push_back(std::move(metric));
  return family;
}

void AddCounter(double value, const prometheus::Labels& labels, prometheus::MetricFamily* family) {
  prometheus::ClientMetric metric;
  for (const auto& [name, label] : labels) {
    metric.label.push_back({name, label});
  }
  metric.counter.value = value;
  family->metric.push_back(std::move(metric));
}

prometheus::Histogram::BucketBoundaries DurationBuckets() {
  return {0.00001, 0.00003, 0.0001, 0.0003, 0.0006, 0.001, 0.002, 0.003, 0.005, 0.008, 0.013,
          0.02,    0.03,    0.05,   0.08,   0.13,   0.2,   0.5,   1.0,   2.0,   5.0,   10.0};
}

prometheus::Histogram::BucketBoundaries LoadBuckets() {
  return {0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600};
}

prometheus::Histogram::BucketBoundaries RowBuckets() {
  prometheus::Histogram::BucketBoundaries bounds;
  for (double rows = 1; rows <= 8192; rows *= 2) {
    bounds.push_back(rows);
  }
  return bounds;
}

prometheus::Histogram::BucketBoundaries RelativeErrorBuckets() {
  return {1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5};
}

namespace {

prometheus::MetricFamily Counted(const CounterInfo& info,
                                 const std::vector<std::pair<prometheus::Labels, uint64_t>>& all) {
  prometheus::MetricFamily family = FamilyOf(info);
  for (const auto& [labels, value] : all) {
    AddCounter(static_cast<double>(value), labels, &family);
  }
  return family;
}

// What belongs to the process as a whole.
std::vector<prometheus::MetricFamily> ReadProcess() {
  return {
      GaugeOf(table::kResidentBytes, ResidentBytes()),
      Counted(table::kMessageBytesTotal, {{{{"direction", "sent"}}, message_bytes.sent},
                                          {{{"direction", "received"}}, message_bytes.received}}),
      Counted(table::kTensorCopiedBytesTotal, {{{}, copied_tensor_bytes}}),
      GaugeOf(table::kBufferedBytes, message_bytes.buffered),
      Counted(table::kReturnedBytesTotal, {{{}, returned_bytes}}),
      GaugeOf(table::kConnections, connection_counts.open),
      Counted(table::kConnectionsRefusedTotal,
              {{{{"reason", "descriptors"}}, connection_counts.refused_for_descriptors},
               {{{"reason", "number"}}, connection_counts.refused_for_number},
               {{{"reason", "resets"}}, connection_counts.ended_for_resets},
               {{{"reason", "stalls"}}, connection_counts.ended_for_stalls},
               {{{"reason", "accept"}}, connection_counts.accept_failures}}),
  };
}

}  // namespace

void RegisterProcessMetrics(const std::string& process, const Version& version,
                            prometheus::Registry& registry) {
  RegisterGauges(registry, table::kBuildInfo)
      .Add({{"process", process},
            {"version", version.number},
            {"commit", version.commit},
            {"build_type", version.build_type}})
      .Set(1);
}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& address, std::shared_ptr<prometheus::Registry> registry) {
  ASSIGN_OR_RETURN(std::unique_ptr<HttpServer> http, HttpServer::Start(address));
  std::unique_ptr<MetricsServer> server(new MetricsServer(std::move(http)));
  server->Add(std::move(registry));
  server->http_->Handle("/metrics", [served = server.get()](const HttpRequest& request) {
    return served->Serve(request);
  });
  return server;
}

MetricsServer::MetricsServer(std::unique_ptr<HttpServer> http) : http_(std::move(http)) {}

// Ends the server first, whose threads call this.
MetricsServer::~MetricsServer() { http_.reset(); }

void MetricsServer::Add(std::shared_ptr<const prometheus::Collectable> collectable) {
  const absl::MutexLock lock(&mutex_);
  collectables_.push_back(std::move(collectable));
}

void MetricsServer::AddExemplars(const Exemplars* exemplars) {
  const absl::MutexLock lock(&mutex_);
  exemplars_.push_back(exemplars);
}

HttpResponse MetricsServer::Serve(const HttpRequest& request) const {
  std::vector<std::shared_ptr<const prometheus::Collectable>> collectables;
  std::vector<const Exemplars*> exemplars;
  {
    const absl::MutexLock lock(&mutex_);
    collectables = collectables_;
    exemplars = exemplars_;
  }
  std::vector<prometheus::MetricFamily> families = ReadProcess();
  for (const std::shared_ptr<const prometheus::Collectable>& collectable : collectables) {
    for (prometheus::MetricFamily& family : collectable->Collect()) {
      families.push_back(std::move(family));
    }
  }
  const Exposition exposition = ChooseExposition(request.accept);
  HttpResponse response;
  response.content_type = ContentType(exposition);
  response.body = Expose(families, exposition, exemplars);
  response.headers = {{"Vary", "Accept"}};
  return response;
}

}  // namespace expertmesh::telemetry
