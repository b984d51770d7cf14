// A histogram for each layer, under one name.
#ifndef EXPERTMESH_COMMON_TELEMETRY_LAYER_HISTOGRAMS_H_
#define EXPERTMESH_COMMON_TELEMETRY_LAYER_HISTOGRAMS_H_

#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/labels.h>
#include <prometheus/registry.h>

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "common/telemetry/metric_info.h"

namespace expertmesh::telemetry {

// Thread-safe. A layer's series, with the labels `layer` and `labels`, appears with its first
// value.
class LayerHistograms {
 public:
  // `registry` must outlive it.
  LayerHistograms(prometheus::Registry& registry, const HistogramInfo& info,
                  prometheus::Labels labels, prometheus::Histogram::BucketBoundaries bounds);

  // A value that is not finite is left out: it would spoil the sum.
  void Observe(uint32_t layer, double value);

 private:
  prometheus::Family<prometheus::Histogram>& family_;
  const prometheus::Labels labels_;
  const prometheus::Histogram::BucketBoundaries bounds_;

  // Family::Add is slow; children are looked up once.
  absl::Mutex mutex_;
  absl::flat_hash_map<uint32_t, prometheus::Histogram*> of_layer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_LAYER_HISTOGRAMS_H_
