#include "router_service/trace_metrics.h"

#include <atomic>
#include <cstdint>
#include <utility>

#include "common/telemetry/metrics.h"
#include "router_service/metrics/metric_table.h"

namespace expertmesh::router {
namespace {

namespace table = metrics::table;

using Families = std::vector<prometheus::MetricFamily>;
using Counts = std::vector<std::pair<prometheus::Labels, double>>;

void Add(const telemetry::CounterInfo& info, const Counts& counts, Families* families) {
  families->push_back(telemetry::FamilyOf(info));
  for (const auto& [labels, count] : counts) {
    telemetry::AddCounter(count, labels, &families->back());
  }
}

double Read(const std::atomic<uint64_t>& count) {
  return static_cast<double>(count.load(std::memory_order_relaxed));
}

void AddTracer(const tracing::TracerCounts& counts, Families* families) {
  Add(table::kTraceSpansTotal, {{{}, Read(counts.spans)}}, families);
  Add(table::kTraceKeptBatchesTotal,
      {{{{"why", "sampled"}}, Read(counts.kept_sampled)},
       {{{"why", "late"}}, Read(counts.kept_late)}},
      families);
  Add(table::kTraceDroppedBatchesTotal,
      {{{{"reason", "limit"}}, Read(counts.dropped_limit)},
       {{{"reason", "full"}}, Read(counts.dropped_full)}},
      families);
}

void AddExporter(const otlp::OtlpCounts& counts, Families* families) {
  Add(table::kTraceExportedSpansTotal, {{{}, Read(counts.exported)}}, families);
  Counts dropped;
  for (const otlp::DropReason reason : otlp::kDropReasons) {
    dropped.push_back(
        {{{"reason", otlp::NameOf(reason)}}, static_cast<double>(counts.Dropped(reason))});
  }
  Add(table::kTraceDroppedSpansTotal, dropped, families);
  Add(table::kTraceExportsTotal, {{{}, Read(counts.requests)}}, families);
  Add(table::kTraceExportRetriesTotal, {{{}, Read(counts.retries)}}, families);
  Add(table::kTraceExportSecondsTotal, {{{}, Read(counts.export_nanos) / 1e9}}, families);
}

}  // namespace

std::vector<prometheus::MetricFamily> TraceMetrics::Collect() const {
  // What there is none of has counted nothing: a series that is not there raises no alert.
  static const tracing::TracerCounts* const no_tracer = new tracing::TracerCounts;
  static const otlp::OtlpCounts* const no_exporter = new otlp::OtlpCounts;
  Families families;
  AddTracer(tracing_->tracer() == nullptr ? *no_tracer : tracing_->tracer()->counts(), &families);
  AddExporter(tracing_->exporter() == nullptr ? *no_exporter : tracing_->exporter()->counts(),
              &families);
  return families;
}

}  // namespace expertmesh::router
