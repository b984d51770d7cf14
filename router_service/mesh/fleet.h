// All nodes of the mesh, as this router sees them, and the placement that follows from it.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_FLEET_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_FLEET_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/timer_queue.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/transport/transport.h"
#include "router_service/mesh/node_link.h"
#include "router_service/mesh/placement.h"
#include "router_service/mesh/weight_verifier.h"
#include "router_service/mesh/wire_encoding.h"

namespace expertmesh::mesh {

// Thread-safe. A new placement, with the next epoch, is made whenever a node comes, goes, is
// refused, drained, or changes what it holds.
class Fleet {
 public:
  // All pointers must outlive the fleet.
  // `verify_bytes_per_second`: see WeightVerifier.
  Fleet(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint, WireEncodings encodings,
        uint64_t verify_bytes_per_second, metrics::RouterMetrics* metrics, Transport* transport,
        TimerQueue* timers, Clock* clock);
  // Closes.
  ~Fleet();
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;

  // Closes every connection for good; batches in flight are lost (their `done` is called). Every
  // later placement is as it was.
  void Close();

  // The nodes to use, in placement order for those not seen before. A node that is no longer listed
  // finishes what it has, serves only what no other node holds, and is let go.
  void SetAddresses(const std::vector<std::string>& addresses);

  // Never null.
  std::shared_ptr<const Placement> placement() const;

  // Null when the node has been let go.
  std::shared_ptr<NodeLink> node(NodeIndex index) const;

  // NOT_FOUND when no node has this address.
  absl::StatusOr<v1::TopologyNode> Drain(const std::string& address, bool resume);

  v1::GetTopologyResponse Topology() const;

  // Calls `callback` after every change, until unsubscribed; from any thread, one at a time, no
  // lock of the fleet held that Topology() or placement() need. Must not block. Unsubscribe waits
  // for a running call and so must not be called from one.
  uint64_t Subscribe(std::function<void()> callback);
  void Unsubscribe(uint64_t id);

 private:
  // Makes a new placement from what the nodes say now, and tells subscribers.
  void Rebuild();
  // Leaves out of `offers` what the weights' digests speak against; returns that.
  std::vector<DamagedExpert> ExcludeDamaged(absl::Span<const std::shared_ptr<NodeLink>> nodes,
                                            std::vector<NodeOffer>* offers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(rebuild_mutex_);
  // Names in the log what is damaged `now` and was not `before`, and sets the metric.
  void TellDamaged(absl::Span<const DamagedExpert> before, absl::Span<const DamagedExpert> now,
                   absl::Span<const std::shared_ptr<NodeLink>> nodes);
  // Destroys links that are no longer listed and idle.
  void Reap();
  void ScheduleReap() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
  const WireEncodings encodings_;
  metrics::RouterMetrics* const metrics_;
  Transport* const transport_;
  TimerQueue* const timers_;
  Clock* const clock_;

  // Serialises Rebuild; taken before mutex_.
  absl::Mutex rebuild_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // Position is the NodeIndex; null once let go.
  std::vector<std::shared_ptr<NodeLink>> nodes_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, NodeIndex> index_of_address_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Placement> placement_ ABSL_GUARDED_BY(mutex_);
  // By node, layer and expert.
  std::vector<DamagedExpert> damaged_ ABSL_GUARDED_BY(mutex_);
  TimerQueue::Id reap_timer_ ABSL_GUARDED_BY(mutex_) = 0;

  absl::Mutex subscribers_mutex_;
  uint64_t next_subscriber_ ABSL_GUARDED_BY(subscribers_mutex_) = 1;
  absl::flat_hash_map<uint64_t, std::function<void()>> subscribers_
      ABSL_GUARDED_BY(subscribers_mutex_);

  // Last: its thread calls Rebuild.
  std::unique_ptr<WeightVerifier> verifier_;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_FLEET_H_
