#include "expert_service/device_metrics.h"

#include "common/telemetry/metrics.h"
#include "expert_service/metric_table.h"

namespace expertmesh::node {

std::vector<prometheus::MetricFamily> DeviceMetrics::Collect() const {
  const experts::DeviceStats stats = stats_ == nullptr ? experts::DeviceStats{} : stats_();
  prometheus::MetricFamily errors = telemetry::FamilyOf(table::kDeviceErrorsTotal);
  const auto add = [&errors](const char* kind, uint64_t count) {
    telemetry::AddCounter(static_cast<double>(count), {{"kind", kind}}, &errors);
  };
  add("memory", stats.memory_errors);
  add("hardware", stats.hardware_errors);
  add("other", stats.other_errors);
  return {telemetry::GaugeOf(table::kDeviceMemoryUsedBytes,
                             static_cast<double>(stats.memory_used_bytes)),
          telemetry::GaugeOf(table::kDeviceMemoryTotalBytes,
                             static_cast<double>(stats.memory_total_bytes)),
          std::move(errors)};
}

}  // namespace expertmesh::node
