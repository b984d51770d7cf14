#include "common/telemetry/grpc_server_metrics.h"

#include <array>
#include <atomic>
#include <utility>

#include "common/telemetry/histogram.h"
#include "common/telemetry/metric_table.h"
#include "common/telemetry/metrics.h"

namespace expertmesh::telemetry {
namespace {

// As dashboards know them: gRPC's codes in the spelling of Go.
constexpr std::array<const char*, 17> kCodes = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};

}  // namespace

class GrpcServerMetrics::Counter final : public MethodCounter {
 public:
  Counter(GrpcServerMetrics* metrics, prometheus::Labels labels)
      : handled_(metrics->handled_),
        labels_(std::move(labels)),
        started_(metrics->started_.Add(labels_)),
        seconds_(&metrics->seconds_.Add(labels_, DurationBuckets())) {
    OfCode(0);
  }

  void Started() override { started_.Increment(); }

  void Handled(absl::StatusCode code, absl::Duration duration) override {
    const auto index = static_cast<size_t>(code);
    OfCode(index < kCodes.size() ? index : static_cast<size_t>(absl::StatusCode::kUnknown))
        .Increment();
    seconds_.Observe(duration);
  }

 private:
  prometheus::Counter& OfCode(size_t index) {
    prometheus::Counter* counter = of_code_[index].load(std::memory_order_acquire);
    if (counter == nullptr) {
      prometheus::Labels labels = labels_;
      labels["grpc_code"] = kCodes[index];
      // The same for everyone who asks.
      counter = &handled_.Add(labels);
      of_code_[index].store(counter, std::memory_order_release);
    }
    return *counter;
  }

  prometheus::Family<prometheus::Counter>& handled_;
  const prometheus::Labels labels_;
  prometheus::Counter& started_;
  const Histogram seconds_;
  // By code, once it has been seen.
  std::array<std::atomic<prometheus::Counter*>, kCodes.size()> of_code_{};
};

GrpcServerMetrics::GrpcServerMetrics(prometheus::Registry& registry)
    : started_(RegisterCounters(registry, table::kServerStartedTotal)),
      handled_(RegisterCounters(registry, table::kServerHandledTotal)),
      seconds_(RegisterHistograms(registry, table::kServerHandlingSeconds)) {}

GrpcServerMetrics::~GrpcServerMetrics() = default;

MethodCounter* GrpcServerMetrics::Method(const std::string& name, bool streams) {
  const absl::MutexLock lock(&mutex_);
  std::unique_ptr<Counter>& counter = counters_[name];
  if (counter == nullptr) {
    const size_t slash = name.rfind('/');
    counter = std::make_unique<Counter>(
        this, prometheus::Labels{{"grpc_service", name.substr(1, slash - 1)},
                                 {"grpc_method", name.substr(slash + 1)},
                                 {"grpc_type", streams ? "bidi_stream" : "unary"}});
  }
  return counter.get();
}

}  // namespace expertmesh::telemetry
