// The router's side of one node: its connection, what it holds, and the batches on their way.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_NODE_LINK_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_NODE_LINK_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "common/base/log_limit.h"
#include "common/base/timer_queue.h"
#include "common/model/model_identity.h"
#include "common/transport/transport.h"
#include "common/wire/message_codec.h"
#include "expertmesh/internal/v1/expert.pb.h"
#include "expertmesh/v1/control.pb.h"
#include "router_service/mesh/in_flight.h"
#include "router_service/mesh/link_time.h"
#include "router_service/mesh/node_batch.h"
#include "router_service/mesh/node_health.h"
#include "router_service/mesh/node_identity.h"
#include "router_service/mesh/wire_encoding.h"
#include "router_service/metrics/router_metrics.h"

namespace expertmesh::mesh {

// Whether the router uses a node, as one word.
enum class LinkState {
  kDown,      // Not reachable; tried again and again.
  kUp,        // Gets batches.
  kRefused,   // Reachable, but serves another model, or is in use under another address.
  kDraining,  // Serves only what no other node holds.
  kEjected,   // The same, since its answers failed or did not come.
};

struct NodeLinkOptions {
  // The router's: a node with another one is refused.
  ModelIdentity model;
  uint32_t d_model = 0;
  WireEncoding encoding;
  HealthOptions health;
};

// What all links are judged by, at one time.
struct Judgement {
  absl::Time now;
  // As Transport::AwakeSince: nothing was overdue before that.
  absl::Time awake_since;
  // See UsualPace.
  absl::Duration usual_pace;
  // The one in use now.
  const MeshView* view = nullptr;
};

// What a node says it holds, and how it is to be used.
struct LinkOffer {
  // Null when the node cannot be used.
  std::shared_ptr<const v1::NodeDescription> description;
  // The process that the description is of.
  std::shared_ptr<const NodeIdentity> identity;
  // Used only where no other node can serve: draining, ejected, or no longer listed.
  bool last_resort = false;
};

// Thread-safe.
class NodeLink final : public NodeObserver {
 public:
  // `on_change` is called, without locks held, whenever what ToProto() or Offer() say may have
  // changed (not for load). Pointers must outlive the link.
  NodeLink(std::string address, NodeLinkOptions options, metrics::RouterMetrics* metrics,
           TimerQueue* timers, Clock* clock, std::function<void()> on_change);
  ~NodeLink() override;

  // Called once. Send() answers UNAVAILABLE before it and after Close().
  void Connect(Transport* transport);
  // Ends the connection; what is in flight is lost. No callback runs afterwards. Not from a
  // callback.
  void Close();

  const std::string& address() const { return address_; }
  // The types that rows have on this link.
  WireEncoding encoding() const { return options_.encoding; }

  // Id for a batch of this router, unique on this link.
  uint64_t NextBatchId() { return next_batch_id_.fetch_add(1, std::memory_order_relaxed); }
  // Sends the frames of `batch` (encoded with an id that NextBatchId gave), which are moved from.
  // On failure `Done` has been or will be called just as when the node fails later.
  void Send(uint64_t batch_id, std::shared_ptr<NodeBatch> batch, absl::Span<Frame> frames);

  // As NodeConnection's, but UNAVAILABLE within the call before Connect and after Close.
  void LoadExperts(const internal::v1::LoadExpertsRequest& request, absl::Duration timeout,
                   LoadDone done);
  void UnloadExperts(const internal::v1::UnloadExpertsRequest& request, absl::Duration timeout,
                     UnloadDone done);

  // Token rows sent and not yet answered.
  uint64_t rows_in_flight() const { return rows_in_flight_.load(std::memory_order_relaxed); }

  LinkOffer Offer() const;
  LinkState state() const;
  // As the node described itself last; empty before that.
  std::string node_id() const;
  std::string instance_id() const;
  // The address under which the same node is used, which makes this link refused; empty: none. True
  // when that changed; `on_change` is not called.
  bool SetTwin(const std::string& address);

  // Time for each assignment in flight that the node takes lately; none before its first answer.
  std::optional<absl::Duration> RecentPace() const;
  // Looks at what is in flight: gives what is overdue to other nodes where they can serve it, and
  // ejects the node, or tries it again. Now and then, by one thread at a time.
  void Judge(const Judgement& by);

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

  // Counts it, in the topology, the metrics and now and then the log; it speaks for ejecting the
  // node.
  void CountFault(NodeFault fault);
  // The node and another one computed different values of the same row.
  void CountDisagreement();

  v1::TopologyNode ToProto() const;

  // NodeObserver.
  void OnStatus(const internal::v1::WatchStatusResponse& status) override;
  void OnFrame(Frame frame) override;
  void OnDisconnected(const absl::Status& why) override;

 private:
  template <typename Request, typename Done>
  void Call(void (NodeConnection::*method)(const Request&, absl::Duration, Done),
            const Request& request, absl::Duration timeout, Done done);
  // Out of those in flight, since not all of it could be sent; null when it is not there.
  std::shared_ptr<NodeBatch> TakeUnsent(uint64_t batch_id);
  // The same by an answer, which was `status`; and when nothing is awaited any more, lets the
  // connection rest.
  std::shared_ptr<NodeBatch> TakeAnswered(uint64_t batch_id, const absl::Status& status);
  // DATA_LOSS when the bytes in answer_ are not those that the node sent, or those that it got not
  // those that this router sent.
  absl::Status CheckChecksum() const;
  // Gives the frame decoded into answer_ to its batch.
  void OnAnswer();
  // Gives up on every batch in flight.
  void LoseAll(const absl::Status& why);
  // Notes what is overdue, and takes out what can go elsewhere.
  std::vector<std::shared_ptr<NodeBatch>> TakeOverdue(const Judgement& by)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ejects the node if that is due: says why, empty when it did not.
  std::string EjectIfDue(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Sends a batch that no request waits for.
  void Try(uint64_t epoch);
  void OnTried(const absl::Status& status);
  void Count(NodeFault fault, uint64_t count);
  LinkState StateLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string ReasonLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string address_;
  const NodeLinkOptions options_;
  metrics::RouterMetrics* const metrics_;
  const metrics::RouterMetrics::NodeSeries series_;
  Clock* const clock_;
  const std::function<void()> on_change_;
  // What becomes of the link, which may change many times a second.
  LatestLine log_;

  std::atomic<uint64_t> next_batch_id_{1};
  std::atomic<uint64_t> rows_in_flight_{0};

  mutable absl::Mutex mutex_;
  bool up_ ABSL_GUARDED_BY(mutex_) = false;
  bool was_up_ ABSL_GUARDED_BY(mutex_) = false;  // At any time.
  bool refused_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool listed_ ABSL_GUARDED_BY(mutex_) = true;
  std::string twin_ ABSL_GUARDED_BY(mutex_);
  std::string why_down_ ABSL_GUARDED_BY(mutex_) = "not yet connected";
  absl::Time down_since_ ABSL_GUARDED_BY(mutex_);
  uint64_t disconnects_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t disagreements_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t faulty_answers_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t overdue_batches_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t ejections_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t computed_assignments_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t compute_us_ ABSL_GUARDED_BY(mutex_) = 0;
  LinkTime link_time_ ABSL_GUARDED_BY(mutex_);
  v1::NodeState node_state_ ABSL_GUARDED_BY(mutex_) = v1::NODE_STATE_UNSPECIFIED;
  std::shared_ptr<const v1::NodeDescription> description_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const NodeIdentity> identity_ ABSL_GUARDED_BY(mutex_);
  InFlight in_flight_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_answer_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  NodeHealth health_ ABSL_GUARDED_BY(mutex_);
  std::string why_ejected_ ABSL_GUARDED_BY(mutex_);
  bool trying_ ABSL_GUARDED_BY(mutex_) = false;

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
