// Rows that a link's type cannot hold: how many there were, and a line in the log when a layer has
// its first.
#ifndef EXPERTMESH_COMMON_TELEMETRY_WIRE_OVERFLOW_H_
#define EXPERTMESH_COMMON_TELEMETRY_WIRE_OVERFLOW_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/registry.h>

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "common/telemetry/metric_info.h"

namespace expertmesh::telemetry {

// Thread-safe. A layer's series, with the labels `layer` and `direction`, appears with its first
// row.
class WireOverflow {
 public:
  // `registry` must outlive it. `direction`: "hidden_states" or "partials".
  WireOverflow(prometheus::Registry& registry, const CounterInfo& info, std::string direction);

  // `rows` rows, the largest finite magnitude among them `largest`, went as `wider` since `narrow`
  // ends before that.
  void Count(uint32_t layer, uint64_t rows, float largest, absl::string_view narrow,
             absl::string_view wider);

 private:
  prometheus::Family<prometheus::Counter>& family_;
  const std::string direction_;

  // Family::Add is slow; children are looked up once.
  absl::Mutex mutex_;
  absl::flat_hash_map<uint32_t, prometheus::Counter*> of_layer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_WIRE_OVERFLOW_H_
