// The router's side of one node: its connection, what it holds, and the batches on their way.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_NODE_LINK_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_NODE_LINK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/tensor/aligned_buffer.h"
#include "common/transport/transport.h"
#include "common/wire/message_codec.h"
#include "expertmesh/v1/control.pb.h"
#include "expertmesh/v1/expert.pb.h"
#include "router_service/mesh/wire_encoding.h"
#include "router_service/metrics/router_metrics.h"
#include "router_service/plan/planner.h"

namespace expertmesh::mesh {

// Why an answer of a node is not used although the node is there.
enum class NodeFault {
  kNonFinite,  // A NaN or an infinity for finite rows, which a replica did not have.
  kChecksum,   // The bytes are not those that were sent.
};

// A plan on its way to one node, and the partials that come back.
struct NodeBatch {
  virtual ~NodeBatch() = default;

  uint32_t layer = 0;
  uint32_t d_model = 0;
  // Type in which they come; rows that are beyond it come as kF32.
  DType partials_dtype = DType::kF32;
  plan::NodePlan plan;
  // The node was asked for a row for each assignment instead of each row.
  bool per_assignment = false;
  size_t answer_rows() const { return per_assignment ? plan.expert_ids.size() : plan.rows.size(); }
  // [answer_rows(), d_model] of kept_dtype; complete when the batch is done without error.
  std::shared_ptr<AlignedBuffer> partials;
  // As they come, if that is a type to compute with; kF32 once a row has come wider.
  DType kept_dtype = DType::kF32;
  // Rows received so far; they come in order.
  uint32_t received = 0;
  // The received rows with a NaN or an infinity; ascending.
  std::vector<uint32_t> nonfinite_rows;

  // Decodes the next rows of the answer.
  void Receive(const TensorFrame& rows);
  // As the node said in its last frame.
  uint64_t queue_us = 0;
  uint64_t compute_us = 0;

  // Called once, from any thread, without locks held. `lost`: nothing of this batch counts and
  // another node may take it.
  virtual void Done(const absl::Status& status, bool lost) = 0;
};

// Thread-safe.
class NodeLink final : public NodeObserver {
 public:
  // `on_change` is called, without locks held, whenever what ToProto() or Offer() say may have
  // changed (not for load). `fingerprint`: of the router's model; a node with another one is
  // refused. `metrics` must outlive the link.
  NodeLink(NodeIndex index, std::string address, std::string fingerprint, WireEncoding encoding,
           metrics::RouterMetrics* metrics, std::function<void()> on_change);
  ~NodeLink() override;

  // Called once. Send() answers UNAVAILABLE before it and after Close().
  void Connect(Transport* transport);
  // Ends the connection; what is in flight is lost. No callback runs afterwards. Not from a
  // callback.
  void Close();

  NodeIndex index() const { return index_; }
  const std::string& address() const { return address_; }
  // The types that rows have on this link.
  WireEncoding encoding() const { return encoding_; }

  // Sends the frames of `batch` (encoded with the batch_id that NextBatchId gave), which are moved
  // from. On failure `Done` has been or will be called just as when the node fails later.
  void Send(uint64_t batch_id, std::shared_ptr<NodeBatch> batch, absl::Span<Frame> frames);
  uint64_t NextBatchId();

  // What the node said it holds, when it may be used; null otherwise. Sets `last_resort` when
  // draining.
  std::shared_ptr<const v1::DescribeResponse> Offer(bool* last_resort) const;

  plan::NodeLoad Load() const;
  // Largest frame to send, in bytes.
  uint64_t MaxFrameBytes() const;

  // Operator's wish: no new batches if avoidable.
  void SetDraining(bool draining);
  // No longer among the mesh's addresses (or again). True when that changed; `on_change` is not
  // called.
  bool SetListed(bool listed);
  bool Listed() const;
  // Not listed and nothing in flight: can be destroyed.
  bool Idle() const;

  // Counts it, in the topology, the metrics and now and then the log.
  void CountFault(NodeFault fault);
  // The node and another one computed different values of the same row.
  void CountDisagreement();

  v1::TopologyNode ToProto() const;

  // NodeObserver.
  void OnStatus(const v1::WatchStatusResponse& status) override;
  void OnFrame(Frame frame) override;
  void OnDisconnected(const absl::Status& why) override;

 private:
  std::shared_ptr<NodeBatch> Take(uint64_t batch_id);
  // DATA_LOSS when the bytes in answer_ are not those that the node sent, or those that it got not
  // those that this router sent.
  absl::Status CheckChecksum() const;
  // What the frame decoded into answer_ means for its batch.
  void OnAnswer();
  // Gives up on every batch in flight.
  void LoseAll(const absl::Status& why);
  v1::NodeLink State() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const NodeIndex index_;
  const std::string address_;
  const std::string fingerprint_;
  const WireEncoding encoding_;
  metrics::RouterMetrics* const metrics_;
  const std::function<void()> on_change_;

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
  std::shared_ptr<const v1::DescribeResponse> description_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_batch_id_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::flat_hash_map<uint64_t, std::shared_ptr<NodeBatch>> in_flight_ ABSL_GUARDED_BY(mutex_);
  uint64_t rows_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;

  // Of OnFrame alone, whose calls come one after the other: kept for its memory.
  TensorMessage<v1::ComputeResponse> answer_;

  // Keeps the frames of one batch together; the connection only queues them.
  absl::Mutex send_mutex_;
  std::unique_ptr<NodeConnection> connection_ ABSL_GUARDED_BY(send_mutex_);
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_NODE_LINK_H_
