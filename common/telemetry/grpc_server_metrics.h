// grpc_server_*: the names and labels that ready-made dashboards of gRPC servers know.
#ifndef EXPERTMESH_COMMON_TELEMETRY_GRPC_SERVER_METRICS_H_
#define EXPERTMESH_COMMON_TELEMETRY_GRPC_SERVER_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/transport/call_counter.h"

namespace expertmesh::telemetry {

// Methods are those of the server, never what a caller calls for: their number is bounded.
class GrpcServerMetrics final : public CallCounter {
 public:
  // `registry` must outlive it.
  explicit GrpcServerMetrics(prometheus::Registry& registry);
  ~GrpcServerMetrics() override;

  MethodCounter* Method(const std::string& name, bool streams) override;

 private:
  class Counter;

  prometheus::Family<prometheus::Counter>& started_;
  prometheus::Family<prometheus::Counter>& handled_;
  prometheus::Family<prometheus::Histogram>& seconds_;
  absl::Mutex mutex_;
  std::map<std::string, std::unique_ptr<Counter>> counters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_GRPC_SERVER_METRICS_H_
