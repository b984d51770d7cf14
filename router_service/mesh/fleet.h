// All nodes of the mesh, as this router sees them, and the placement that follows from it.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_FLEET_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_FLEET_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/log_limit.h"
#include "common/base/timer_queue.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/transport/transport.h"
#include "router_service/mesh/mesh_view.h"
#include "router_service/mesh/node_judge.h"
#include "router_service/mesh/node_link.h"
#include "router_service/mesh/placement.h"
#include "router_service/mesh/view_maker.h"
#include "router_service/mesh/weight_verifier.h"
#include "router_service/mesh/wire_encoding.h"

namespace expertmesh::mesh {

struct FleetOptions {
  WireEncodings encodings;
  HealthOptions health;
  // See WeightVerifier.
  uint64_t verify_bytes_per_second = 0;
  // The checkpoint's. Not null.
  std::shared_ptr<const SelectBiases> biases;
};

// The mesh in numbers.
struct MeshSummary {
  uint64_t epoch = 0;
  uint64_t missing_experts = 0;
  // Nodes by LinkState.
  std::map<LinkState, uint64_t> nodes;
  bool lookup_fails = false;
};

// What one node holds.
struct NodeHolding {
  std::shared_ptr<NodeLink> link;
  LinkOffer offer;
  // (layer, expert) of what it offers that is not used, ascending.
  std::vector<std::pair<uint32_t, uint32_t>> damaged;
};

// Thread-safe. A new view is made whenever a node comes, goes, is refused, drained, or changes what
// it holds, and whenever the directive changes; the directive says of which epoch.
//
// A node is its node_id: one that comes back under another address keeps its place in placement
// order, its counters and an operator's wish to drain it. The places of nodes that are gone are
// used again, so that the fleet is as large as the largest number of nodes that there were at a
// time.
class Fleet {
 public:
  // All pointers must outlive the fleet.
  Fleet(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint, FleetOptions options,
        metrics::RouterMetrics* metrics, Transport* transport, TimerQueue* timers, Clock* clock);
  // Closes.
  ~Fleet();
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;

  // Closes every connection for good; batches in flight are lost (their Done is called). The view
  // stays as it is.
  void Close();

  // The nodes to use, in placement order for those not seen before. A node that is no longer listed
  // finishes what it has, serves only what no other node holds, and is let go.
  void SetAddresses(const std::vector<std::string>& addresses);

  // The outcome of looking for nodes, for those who watch the topology. In the log, too.
  void SetLookupStatus(const absl::Status& status);

  // What views are made by from now on. Returns the epoch of the first of them: that of the view
  // before when nothing is decided anew, which is when biases and plan are the same objects.
  uint64_t SetDirective(Directive directive);

  // Never null.
  std::shared_ptr<const MeshView> view() const;
  // Every expert of every layer has a node.
  bool ready() const { return view()->placement().complete(); }

  // NOT_FOUND when no node has this address.
  absl::StatusOr<v1::TopologyNode> Drain(const std::string& address, bool resume);

  // In placement order.
  std::vector<NodeHolding> Holdings() const;

  v1::Topology Topology() const;
  MeshSummary Summary() const;

  // Calls `callback` after every change, until unsubscribed; from any thread, one at a time, no
  // lock of the fleet held that Topology() or view() need. Must not block. Unsubscribe waits
  // for a running call and so must not be called from one.
  uint64_t Subscribe(std::function<void()> callback);
  void Unsubscribe(uint64_t id);

 private:
  using Links = std::vector<std::shared_ptr<NodeLink>>;

  // Makes a new view from what the nodes say now, and tells subscribers.
  void Rebuild();
  void TellSubscribers();
  // The place of a new node: one that is free.
  NodeIndex FreePlace() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives nodes that came back under another address the places that they had.
  void RecogniseNodes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of the view that is made next, if it differs in what batches see.
  ViewVersion NextVersion() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ViewBiases Biases() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LogView(const MeshView& view, const Links& nodes);
  NodeJudge::Subjects Subjects() const;
  // Destroys links that are no longer listed and idle.
  void Reap();
  void ScheduleReap() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
  const FleetOptions options_;
  metrics::RouterMetrics* const metrics_;
  Transport* const transport_;
  TimerQueue* const timers_;
  Clock* const clock_;
  LatestLine epoch_line_;

  // Serialises Rebuild; taken before mutex_.
  absl::Mutex rebuild_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // Position is the NodeIndex; null where a node was let go.
  Links nodes_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, NodeIndex> index_of_address_ ABSL_GUARDED_BY(mutex_);
  // Links whose node has said its node_id.
  absl::flat_hash_set<const NodeLink*> recognised_ ABSL_GUARDED_BY(mutex_);
  Directive directive_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const MeshView> view_ ABSL_GUARDED_BY(mutex_);
  absl::Status lookup_status_ ABSL_GUARDED_BY(mutex_);
  // By node, layer and expert.
  std::vector<DamagedExpert> damaged_ ABSL_GUARDED_BY(mutex_);
  TimerSlot reap_timer_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex subscribers_mutex_;
  uint64_t next_subscriber_ ABSL_GUARDED_BY(subscribers_mutex_) = 1;
  absl::flat_hash_map<uint64_t, std::function<void()>> subscribers_
      ABSL_GUARDED_BY(subscribers_mutex_);

  // Last: its thread calls Rebuild.
  std::unique_ptr<WeightVerifier> verifier_;
  const ViewMaker view_maker_;
  NodeJudge judge_;  // As the verifier.
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_FLEET_H_
