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
#include "common/telemetry/wire_overflow.h"
#include "common/tensor/dtype.h"
#include "expertmesh/v1/expert.pb.h"

namespace expertmesh::node {

// Thread-safe.
class NodeMetrics {
 public:
  explicit NodeMetrics(std::shared_ptr<prometheus::Registry> registry);

  // One batch answered well: its wait, and one computed group: its rows, duration and assignments
  // per expert ([num_experts], zeros are left out).
  void RecordQueueing(absl::Duration wait);
  void RecordComputed(uint32_t layer, size_t rows, absl::Duration duration,
                      absl::Span<const uint64_t> assignments);
  // One batch that got an error instead of a result; `reason` is its code in lower case, or
  // "stream_gone".
  void CountRejected(absl::StatusCode code);
  void CountDropped();
  void CountNonFinite(size_t tokens);
  // One row of partials lost `error` (EncodingError) on its way out.
  void RecordEncodingError(uint32_t layer, double error) { partials_error_.Observe(layer, error); }
  // Rows of partials went as float32 since their values, up to `largest`, are beyond `dtype`.
  void CountWidened(uint32_t layer, size_t rows, float largest, DType dtype) {
    partials_overflow_.Count(layer, rows, largest, NameOf(dtype), NameOf(DType::kF32));
  }
  void SetQueueRows(uint64_t rows);
  // Weights held, and what these take in the checkpoint.
  void SetWeightsBytes(uint64_t bytes, uint64_t checkpoint_bytes);
  void SetState(v1::NodeState state);

  // Makes the series of an expert appear with 0 before its first token.
  void AddExpertSeries(uint32_t layer, absl::Span<const uint32_t> experts);

 private:
  prometheus::Counter& Tokens(uint32_t layer, uint32_t expert);
  void CountReason(absl::string_view reason);

  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& tokens_;
  prometheus::Histogram& batch_rows_;
  prometheus::Histogram& queue_seconds_;
  prometheus::Histogram& forward_seconds_;
  prometheus::Family<prometheus::Counter>& rejected_;
  prometheus::Gauge& weights_bytes_;
  prometheus::Gauge& checkpoint_bytes_;
  prometheus::Counter& nonfinite_;
  prometheus::Gauge& queue_rows_;
  prometheus::Family<prometheus::Gauge>& state_;
  telemetry::LayerHistograms partials_error_;
  telemetry::WireOverflow partials_overflow_;

  // Family::Add is slow; children are looked up once.
  absl::Mutex mutex_;
  absl::flat_hash_map<std::pair<uint32_t, uint32_t>, prometheus::Counter*> tokens_of_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_NODE_METRICS_H_
