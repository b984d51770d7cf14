// The router's side of one node: its connection, what it holds, and the batches on their way.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_NODE_LINK_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_NODE_LINK_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/model/model_identity.h"
#include "common/transport/transport.h"
#include "common/wire/message_codec.h"
#include "expertmesh/internal/v1/expert.pb.h"
#include "expertmesh/v1/control.pb.h"
#include "router_service/mesh/node_batch.h"
#include "router_service/mesh/wire_encoding.h"
#include "router_service/metrics/router_metrics.h"

namespace expertmesh::mesh {

// Why an answer of a node is not used although the node is there.
enum class NodeFault {
  kNonFinite,  // A NaN or an infinity for finite rows, which a replica did not have.
  kChecksum,   // The bytes are not those that were sent.
};

// Whether the router uses a node, as one word.
enum class LinkState {
  kDown,      // Not reachable; tried again and again.
  kUp,        // Gets batches.
  kRefused,   // Reachable, but serves another model.
  kDraining,  // Serves only what no other node holds.
};

// What a node says it holds, and how it is to be used.
struct LinkOffer {
  // Null when the node cannot be used.
  std::shared_ptr<const v1::NodeDescription> description;
  // Used only where no other node can serve: draining, or no longer listed.
  bool last_resort = false;
};

// Thread-safe.
class NodeLink final : public NodeObserver {
 public:
  // `on_change` is called, without locks held, whenever what ToProto() or Offer() say may have
  // changed (not for load). `model`: the router's; a node with another one is refused. `metrics`
  // must outlive the link.
  NodeLink(std::string address, ModelIdentity model, WireEncoding encoding,
           metrics::RouterMetrics* metrics, std::function<void()> on_change);
  ~NodeLink() override;

  // Called once. Send() answers UNAVAILABLE before it and after Close().
  void Connect(Transport* transport);
  // Ends the connection; what is in flight is lost. No callback runs afterwards. Not from a
  // callback.
  void Close();

  const std::string& address() const { return address_; }
  // The types that rows have on this link.
  WireEncoding encoding() const { return encoding_; }

  // Id for a batch of this router, unique on this link.
  uint64_t NextBatchId() { return next_batch_id_.fetch_add(1, std::memory_order_relaxed); }
  // Sends the frames of `batch` (encoded with an id that NextBatchId gave), which are moved from.
  // On failure `Done` has been or will be called just as when the node fails later.
  void Send(uint64_t batch_id, std::shared_ptr<NodeBatch> batch, absl::Span<Frame> frames);

  // Token rows sent and not yet answered.
  uint64_t rows_in_flight() const { return rows_in_flight_.load(std::memory_order_relaxed); }

  LinkOffer Offer() const;
  LinkState state() const;
  // As the node described itself last; empty before that.
  std::string node_id() const;

  // Operator's wish: no new batches if avoidable.
  void SetDraining(bool draining);
  // No longer among the mesh's addresses (or again). True when that changed; `on_change` is not
  // called.
  bool SetListed(bool listed);
  bool Listed() const;
  // Not listed and nothing in flight: can be destroyed.
  bool Idle() const;
  // `before` was the same node under another address: what was counted, and whether an operator
  // drained it, go on here.
  void ContinueFrom(const NodeLink& before);

  // Counts it, in the topology, the metrics and now and then the log.
  void CountFault(NodeFault fault);
  // The node and another one computed different values of the same row.
  void CountDisagreement();

  v1::TopologyNode ToProto() const;

  // NodeObserver.
  void OnStatus(const internal::v1::WatchStatusResponse& status) override;
  void OnFrame(Frame frame) override;
  void OnDisconnected(const absl::Status& why) override;

 private:
  // Out of those in flight; null when it is not there.
  std::shared_ptr<NodeBatch> Take(uint64_t batch_id);
  // The same, from OnFrame; and when nothing is awaited any more, lets the connection rest.
  std::shared_ptr<NodeBatch> TakeAnswered(uint64_t batch_id);
  std::shared_ptr<NodeBatch> TakeLocked(uint64_t batch_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // DATA_LOSS when the bytes in answer_ are not those that the node sent, or those that it got not
  // those that this router sent.
  absl::Status CheckChecksum() const;
  // Gives the frame decoded into answer_ to its batch.
  void OnAnswer();
  // Gives up on every batch in flight.
  void LoseAll(const absl::Status& why);
  LinkState StateLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string address_;
  const ModelIdentity model_;
  const WireEncoding encoding_;
  metrics::RouterMetrics* const metrics_;
  const std::function<void()> on_change_;

  std::atomic<uint64_t> next_batch_id_{1};
  std::atomic<uint64_t> rows_in_flight_{0};

  mutable absl::Mutex mutex_;
  bool up_ ABSL_GUARDED_BY(mutex_) = false;
  bool refused_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool listed_ ABSL_GUARDED_BY(mutex_) = true;
  std::string reason_ ABSL_GUARDED_BY(mutex_) = "not yet connected";
  uint64_t disconnects_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t disagreements_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t faulty_answers_ ABSL_GUARDED_BY(mutex_) = 0;
  v1::NodeState node_state_ ABSL_GUARDED_BY(mutex_) = v1::NODE_STATE_UNSPECIFIED;
  std::shared_ptr<const v1::NodeDescription> description_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, std::shared_ptr<NodeBatch>> in_flight_ ABSL_GUARDED_BY(mutex_);

  // Used only by OnFrame, whose calls come one after the other; kept to avoid allocating.
  TensorMessage<internal::v1::ComputeResponse> answer_;

  // Keeps the frames of one batch together; the connection only queues them.
  absl::Mutex send_mutex_;
  std::unique_ptr<NodeConnection> connection_ ABSL_GUARDED_BY(send_mutex_);
  // connection_ for its own callbacks, which it outlives; null until Connect has returned.
  std::atomic<NodeConnection*> caller_{nullptr};
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_NODE_LINK_H_
