// Now and then, one row for two nodes that hold the same expert: what digests of files cannot see,
// memory that went bad after loading or a core that multiplies wrongly, shows in what they compute.
// Shared experts are left out: a node's routed ones show the same of it.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_CROSS_CHECK_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_CROSS_CHECK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/gate/routed_tokens.h"
#include "common/tensor/dtype.h"
#include "router_service/mesh/mesh_view.h"
#include "router_service/mesh/node_probe.h"
#include "router_service/metrics/router_metrics.h"

namespace expertmesh::mesh {

// Thread-safe. No request waits for a check or fails because of one: both nodes get a batch of one
// row and one assignment beside what they serve, at most one pair of them for each layer and
// interval. Two that differ by more than rounding are both counted and named: two answers
// alone do not show which one is wrong.
class CrossChecker {
 public:
  // `interval`: between two checks of a layer; zero: there are none. The pointers must outlive the
  // checks, which are over when the fleet is closed.
  CrossChecker(absl::Duration interval, metrics::RouterMetrics* metrics, Clock* clock);

  // Rows of a batch that is being served, [rows, d_model] of `dtype`, and where they went. Copies
  // one of them when it is time for a check of the layer.
  void Offer(uint32_t layer, const MeshView& view, const gate::RoutedTokens& routed,
             const uint8_t* hidden_states, Dtype dtype, size_t d_model);

 private:
  struct Check;
  struct Schedule {
    absl::Time next;
    uint64_t turn = 0;
    bool under_way = false;
  };
  // The turn of the check that is due; none when none is.
  std::optional<uint64_t> Begin(uint32_t layer);
  void End(uint32_t layer);
  void Send(const std::shared_ptr<Check>& check, size_t which, const uint8_t* row, Dtype dtype,
            uint64_t epoch);
  void OnAnswer(const std::shared_ptr<Check>& check, size_t which, const NodeProbe& probe,
                const absl::Status& status);
  void Compare(const Check& check);

  const absl::Duration interval_;
  metrics::RouterMetrics* const metrics_;
  Clock* const clock_;

  absl::Mutex mutex_;
  absl::flat_hash_map<uint32_t, Schedule> schedules_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_CROSS_CHECK_H_
