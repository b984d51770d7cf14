// The node's metrics. Names and labels are part of what operators rely on.
#ifndef EXPERTMESH_EXPERT_SERVICE_NODE_METRICS_H_
#define EXPERTMESH_EXPERT_SERVICE_NODE_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "common/telemetry/expert_series.h"
#include "common/telemetry/layer_histograms.h"
#include "common/telemetry/metrics.h"
#include "common/telemetry/wire_overflow.h"
#include "common/tensor/dtype.h"
#include "expert_service/computed_counts.h"
#include "expert_service/metric_table.h"
#include "expertmesh/internal/v1/expert.pb.h"

namespace expertmesh::node {

// Thread-safe. Each member is an entry of the table, where name, help and labels stand.
class NodeMetrics {
 public:
  // `clock` must outlive it.
  explicit NodeMetrics(std::shared_ptr<prometheus::Registry> registry,
                       const telemetry::ExpertMetricsOptions& experts = {},
                       Clock* clock = Clock::Real());

  // One batch answered well: its wait, and one computed group: its batches, rows, duration and
  // assignments per expert ([hostable_experts()]).
  void RecordQueueing(absl::Duration wait) { queue_seconds_.Observe(wait); }
  void RecordComputed(uint32_t layer, size_t batches, size_t rows, absl::Duration duration,
                      absl::Span<const uint64_t> assignments);
  // One batch that got an error instead of a result; `reason` is its code in lower case, or
  // "stream_gone".
  void CountRejected(absl::StatusCode code);
  void CountDropped() { CountReason("stream_gone"); }
  void CountNonFinite(size_t tokens) { nonfinite_.Increment(static_cast<double>(tokens)); }
  // One row of partials lost `error` (EncodingError) on its way out.
  void RecordEncodingError(uint32_t layer, double error) { partials_error_.Observe(layer, error); }
  // Rows of partials went as float32 since their values, up to `largest`, are beyond `dtype`.
  void CountWidened(uint32_t layer, size_t rows, float largest, Dtype dtype) {
    partials_overflow_.Count(layer, rows, largest, NameOf(dtype), NameOf(Dtype::kF32));
  }
  void SetQueue(uint64_t batches, uint64_t rows) {
    queue_batches_.Set(static_cast<double>(batches));
    queue_rows_.Set(static_cast<double>(rows));
  }
  // Experts were loaded, all that were asked for at once.
  void RecordLoad(absl::Duration duration) { load_seconds_.Observe(duration); }
  // Weights held, and what these take in the checkpoint.
  void SetWeightsBytes(uint64_t bytes, uint64_t checkpoint_bytes) {
    weights_bytes_.Set(static_cast<double>(bytes));
    checkpoint_bytes_.Set(static_cast<double>(checkpoint_bytes));
  }
  void SetState(v1::NodeState state);

  // Makes the series of an expert appear with 0 before its first token.
  void AddExpertSeries(uint32_t layer, absl::Span<const uint32_t> experts) {
    computed_->AddExperts(layer, experts);
  }
  // What is read at a scrape, beside the registry.
  std::shared_ptr<const prometheus::Collectable> computed() const { return computed_; }

 private:
  void CountReason(absl::string_view reason);

  const std::shared_ptr<prometheus::Registry> registry_;
  const std::shared_ptr<ComputedCounts> computed_;
  telemetry::Histogram batch_requests_ =
      telemetry::RegisterHistogram(*registry_, table::kBatchRequests, telemetry::RowBuckets());
  telemetry::Histogram load_seconds_ = telemetry::RegisterHistogram(
      *registry_, table::kLoadDurationSeconds, telemetry::LoadBuckets());
  prometheus::Gauge& queue_batches_ = telemetry::RegisterGauge(*registry_, table::kQueueBatches);
  telemetry::Histogram batch_rows_ =
      telemetry::RegisterHistogram(*registry_, table::kBatchRows, telemetry::RowBuckets());
  telemetry::Histogram queue_seconds_ = telemetry::RegisterHistogram(
      *registry_, table::kQueueDurationSeconds, telemetry::DurationBuckets());
  telemetry::Histogram forward_seconds_ = telemetry::RegisterHistogram(
      *registry_, table::kForwardDurationSeconds, telemetry::DurationBuckets());
  prometheus::Family<prometheus::Counter>& rejected_ =
      telemetry::RegisterCounters(*registry_, table::kRejectedTotal);
  prometheus::Gauge& weights_bytes_ =
      telemetry::RegisterGauge(*registry_, table::kWeightsLoadedBytes);
  prometheus::Gauge& checkpoint_bytes_ =
      telemetry::RegisterGauge(*registry_, table::kWeightsCheckpointBytes);
  prometheus::Counter& nonfinite_ =
      telemetry::RegisterCounter(*registry_, table::kNonfiniteTokensTotal);
  prometheus::Gauge& queue_rows_ = telemetry::RegisterGauge(*registry_, table::kQueueRows);
  prometheus::Family<prometheus::Gauge>& state_ =
      telemetry::RegisterGauges(*registry_, table::kState);
  // {layer,direction="partials"}.
  telemetry::LayerHistograms partials_error_{*registry_,
                                             table::kWireRelativeError,
                                             {{"direction", "partials"}},
                                             telemetry::RelativeErrorBuckets()};
  // {layer,direction="partials"}.
  telemetry::WireOverflow partials_overflow_{*registry_, table::kWireOverflowRowsTotal, "partials"};
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_NODE_METRICS_H_
