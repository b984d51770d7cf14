// What is read of the device at a scrape.
#ifndef EXPERTMESH_EXPERT_SERVICE_DEVICE_METRICS_H_
#define EXPERTMESH_EXPERT_SERVICE_DEVICE_METRICS_H_

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <functional>
#include <utility>
#include <vector>

#include "common/experts/device.h"

namespace expertmesh::node {

// Thread-safe if `stats` is, which may be empty: the CPU, of which everything is 0.
class DeviceMetrics final : public prometheus::Collectable {
 public:
  explicit DeviceMetrics(std::function<experts::DeviceStats()> stats) : stats_(std::move(stats)) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::function<experts::DeviceStats()> stats_;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_DEVICE_METRICS_H_
