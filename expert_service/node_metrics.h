// The node's metrics. Names and labels are part of what operators rely on.
#ifndef EXPERTMESH_EXPERT_SERVICE_NODE_METRICS_H_
#define EXPERTMESH_EXPERT_SERVICE_NODE_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/telemetry/layer_histograms.h"
#include "common/telemetry/metrics.h"
#include "common/telemetry/wire_overflow.h"
#include "common/tensor/dtype.h"
#include "expertmesh/internal/v1/expert.pb.h"

namespace expertmesh::node {

// Thread-safe. A metric is declared by its member and nowhere else: name, help and labels stand
// there.
class NodeMetrics {
 public:
  explicit NodeMetrics(std::shared_ptr<prometheus::Registry> registry);

  // One batch answered well: its wait, and one computed group: its rows, duration and assignments
  // per expert ([hostable_experts()], zeros are left out).
  void RecordQueueing(absl::Duration wait) { queue_seconds_.Observe(absl::ToDoubleSeconds(wait)); }
  void RecordComputed(uint32_t layer, size_t rows, absl::Duration duration,
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
  void SetQueueRows(uint64_t rows) { queue_rows_.Set(static_cast<double>(rows)); }
  // Weights held, and what these take in the checkpoint.
  void SetWeightsBytes(uint64_t bytes, uint64_t checkpoint_bytes) {
    weights_bytes_.Set(static_cast<double>(bytes));
    checkpoint_bytes_.Set(static_cast<double>(checkpoint_bytes));
  }
  void SetState(v1::NodeState state);

  // Makes the series of an expert appear with 0 before its first token.
  void AddExpertSeries(uint32_t layer, absl::Span<const uint32_t> experts);

 private:
  prometheus::Counter& Tokens(uint32_t layer, uint32_t expert);
  void CountReason(absl::string_view reason);

  const std::shared_ptr<prometheus::Registry> registry_;
  // {layer,expert}.
  prometheus::Family<prometheus::Counter>& tokens_ = telemetry::RegisterCounters(
      *registry_, "expertmesh_expert_tokens_total", "Assignments (token, expert) computed");
  prometheus::Histogram& batch_rows_ = telemetry::RegisterHistogram(
      *registry_, "expertmesh_expert_batch_rows", "Token rows computed together, over all streams",
      telemetry::RowBuckets());
  prometheus::Histogram& queue_seconds_ = telemetry::RegisterHistogram(
      *registry_, "expertmesh_expert_queue_duration_seconds",
      "Time from a complete batch until its computation starts", telemetry::DurationBuckets());
  prometheus::Histogram& forward_seconds_ = telemetry::RegisterHistogram(
      *registry_, "expertmesh_expert_forward_duration_seconds",
      "Time to gather and compute one merged batch", telemetry::DurationBuckets());
  // {reason}.
  prometheus::Family<prometheus::Counter>& rejected_ = telemetry::RegisterCounters(
      *registry_, "expertmesh_expert_rejected_total",
      "Batches answered with an error, or dropped because their stream is gone");
  prometheus::Gauge& weights_bytes_ = telemetry::RegisterGauge(
      *registry_, "expertmesh_expert_weights_loaded_bytes", "Weights held");
  prometheus::Gauge& checkpoint_bytes_ =
      telemetry::RegisterGauge(*registry_, "expertmesh_expert_weights_checkpoint_bytes",
                               "What the experts now held take in the checkpoint");
  prometheus::Counter& nonfinite_ =
      telemetry::RegisterCounter(*registry_, "expertmesh_expert_nonfinite_tokens_total",
                                 "Token rows received with NaN or infinite values");
  prometheus::Gauge& queue_rows_ = telemetry::RegisterGauge(
      *registry_, "expertmesh_expert_queue_rows", "Token rows waiting to be computed");
  // {state}.
  prometheus::Family<prometheus::Gauge>& state_ = telemetry::RegisterGauges(
      *registry_, "expertmesh_expert_state", "1 for the state the node is in");
  // {layer,direction="partials"}.
  telemetry::LayerHistograms partials_error_{
      *registry_,
      "expertmesh_expert_wire_relative_error",
      "Relative change of a row by its encoding, of one row in each batch",
      {{"direction", "partials"}},
      telemetry::RelativeErrorBuckets()};
  // {layer,direction="partials"}.
  telemetry::WireOverflow partials_overflow_{
      *registry_, "expertmesh_expert_wire_overflow_rows_total", "partials"};

  // Family::Add is slow; children are looked up once.
  absl::Mutex mutex_;
  absl::flat_hash_map<std::pair<uint32_t, uint32_t>, prometheus::Counter*> tokens_of_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_NODE_METRICS_H_
