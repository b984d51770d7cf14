#include "router_service/mesh/node_link.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_context.h"
#include "common/wire/frame_checksum.h"
#include "common/wire/peer_message.h"
#include "common/wire/status.h"
#include "common/wire/wire_dtype.h"

namespace expertmesh::mesh {
namespace {

// Whether another node might do better.
bool RetryElsewhere(absl::StatusCode code) {
  return code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kResourceExhausted ||
         code == absl::StatusCode::kFailedPrecondition || code == absl::StatusCode::kInternal ||
         code == absl::StatusCode::kDataLoss;
}

// Batches in flight that there is room for from the start.
constexpr size_t kUsualInFlight = 64;

v1::NodeLink ToWire(LinkState state) {
  switch (state) {
    case LinkState::kDown:
      return v1::NODE_LINK_DOWN;
    case LinkState::kUp:
      return v1::NODE_LINK_UP;
    case LinkState::kRefused:
      return v1::NODE_LINK_REFUSED;
    case LinkState::kDraining:
      return v1::NODE_LINK_DRAINING;
  }
  EXPERTMESH_CHECK(false);
}

// As Clear(), which would free the status inside: one that is not set means OK, as an empty one
// does.
void ClearAndKeepStatus(internal::v1::ComputeResponse* message) {
  std::unique_ptr<v1::RequestStatus> status(message->release_status());
  message->Clear();
  if (status != nullptr && status->message().empty()) {
    status->Clear();
    message->set_allocated_status(status.release());
  }
}

}  // namespace

NodeLink::NodeLink(std::string address, std::string fingerprint, WireEncoding encoding,
                   metrics::RouterMetrics* metrics, std::function<void()> on_change)
    : address_(std::move(address)),
      fingerprint_(std::move(fingerprint)),
      encoding_(encoding),
      metrics_(metrics),
      on_change_(std::move(on_change)) {
  in_flight_.reserve(kUsualInFlight);
}

NodeLink::~NodeLink() { Close(); }

void NodeLink::Connect(Transport* transport) {
  absl::MutexLock lock(&send_mutex_);
  EXPERTMESH_CHECK(connection_ == nullptr);
  connection_ = transport->Connect(address_, this);
  caller_.store(connection_.get());
}

void NodeLink::Close() {
  std::unique_ptr<NodeConnection> connection;
  {
    absl::MutexLock lock(&send_mutex_);
    connection = std::move(connection_);
  }
  connection.reset();  // Waits for callbacks, which may want send_mutex_.
  {
    absl::MutexLock lock(&mutex_);
    up_ = false;
  }
  LoseAll(absl::UnavailableError(absl::StrCat("the connection to node ", address_, " was closed")));
}

void NodeLink::Send(uint64_t batch_id, std::shared_ptr<NodeBatch> batch, absl::Span<Frame> frames) {
  {
    absl::MutexLock lock(&mutex_);
    rows_in_flight_.fetch_add(batch->rows, std::memory_order_relaxed);
    in_flight_.emplace(batch_id, std::move(batch));
  }
  absl::Status status;
  {
    absl::MutexLock lock(&send_mutex_);
    if (connection_ == nullptr) {
      status = absl::UnavailableError(absl::StrCat("node ", address_, " is not connected"));
      frames = {};
    }
    for (Frame& frame : frames) {
      status = connection_->Send(std::move(frame));
      if (!status.ok()) {
        break;
      }
    }
  }
  if (!status.ok()) {
    if (const std::shared_ptr<NodeBatch> taken = Take(batch_id)) {
      taken->Done(status, RetryElsewhere(status.code()));
    }
  }
}

std::shared_ptr<NodeBatch> NodeLink::Take(uint64_t batch_id) {
  absl::MutexLock lock(&mutex_);
  return TakeLocked(batch_id);
}

std::shared_ptr<NodeBatch> NodeLink::TakeAnswered(uint64_t batch_id) {
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<NodeBatch> batch = TakeLocked(batch_id);
  NodeConnection* const connection = caller_.load();
  // With the lock: a batch that comes is sent after this, which ends the pause.
  if (in_flight_.empty() && connection != nullptr) {
    connection->PauseReading();
  }
  return batch;
}

std::shared_ptr<NodeBatch> NodeLink::TakeLocked(uint64_t batch_id) {
  const auto it = in_flight_.find(batch_id);
  if (it == in_flight_.end()) {
    return nullptr;
  }
  std::shared_ptr<NodeBatch> batch = std::move(it->second);
  in_flight_.erase(it);
  rows_in_flight_.fetch_sub(batch->rows, std::memory_order_relaxed);
  return batch;
}

void NodeLink::LoseAll(const absl::Status& why) {
  absl::flat_hash_map<uint64_t, std::shared_ptr<NodeBatch>> lost;
  {
    absl::MutexLock lock(&mutex_);
    lost.swap(in_flight_);
    for (const auto& [id, batch] : lost) {
      rows_in_flight_.fetch_sub(batch->rows, std::memory_order_relaxed);
    }
  }
  for (const auto& [id, batch] : lost) {
    batch->Done(why, true);
  }
}

LinkOffer NodeLink::Offer() const {
  absl::MutexLock lock(&mutex_);
  const LinkState state = StateLocked();
  if (state == LinkState::kDown || state == LinkState::kRefused) {
    return {};
  }
  return {description_, state == LinkState::kDraining};
}

LinkState NodeLink::state() const {
  absl::MutexLock lock(&mutex_);
  return StateLocked();
}

std::string NodeLink::node_id() const {
  absl::MutexLock lock(&mutex_);
  return description_ == nullptr ? std::string() : description_->node_id();
}

void NodeLink::ContinueFrom(const NodeLink& before) {
  bool draining = false;
  uint64_t disconnects = 0;
  uint64_t disagreements = 0;
  uint64_t faulty_answers = 0;
  {
    absl::MutexLock lock(&before.mutex_);
    draining = before.draining_;
    disconnects = before.disconnects_;
    disagreements = before.disagreements_;
    faulty_answers = before.faulty_answers_;
  }
  absl::MutexLock lock(&mutex_);
  draining_ = draining_ || draining;
  disconnects_ += disconnects;
  disagreements_ += disagreements;
  faulty_answers_ += faulty_answers;
}

void NodeLink::SetDraining(bool draining) {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = draining;
  }
  on_change_();
}

bool NodeLink::SetListed(bool listed) {
  absl::MutexLock lock(&mutex_);
  return std::exchange(listed_, listed) != listed;
}

bool NodeLink::Listed() const {
  absl::MutexLock lock(&mutex_);
  return listed_;
}

bool NodeLink::Idle() const {
  absl::MutexLock lock(&mutex_);
  return !listed_ && in_flight_.empty();
}

LinkState NodeLink::StateLocked() const {
  if (!up_) {
    return LinkState::kDown;
  }
  if (refused_) {
    return LinkState::kRefused;
  }
  if (draining_ || !listed_ || node_state_ == v1::NODE_STATE_DRAINING) {
    return LinkState::kDraining;
  }
  return LinkState::kUp;
}

void NodeLink::CountFault(NodeFault fault) {
  uint64_t count = 0;
  {
    absl::MutexLock lock(&mutex_);
    count = ++faulty_answers_;
  }
  const bool nonfinite = fault == NodeFault::kNonFinite;
  metrics_->CountNodeFault(address_, nonfinite ? "nonfinite" : "checksum");
  if ((count & (count - 1)) == 0) {  // The first, the second, the fourth ...
    spdlog::warn("node {}: {}; not used. Faulty answers of this node so far: {}", address_,
                 nonfinite ? "NaN or an infinity for finite rows, where another replica is finite"
                           : "the checksum of a frame does not fit its bytes",
                 count);
  }
}

void NodeLink::CountDisagreement() {
  absl::MutexLock lock(&mutex_);
  ++disagreements_;
}

v1::TopologyNode NodeLink::ToProto() const {
  absl::MutexLock lock(&mutex_);
  v1::TopologyNode node;
  node.set_address(address_);
  node.set_link(ToWire(StateLocked()));
  node.set_reason(reason_);
  if (description_ != nullptr) {
    *node.mutable_description() = *description_;
  }
  node.set_batches_in_flight(static_cast<uint32_t>(in_flight_.size()));
  node.set_rows_in_flight(rows_in_flight());
  node.set_disconnects(disconnects_);
  node.set_faulty_answers(faulty_answers_);
  node.set_disagreements(disagreements_);
  node.set_hidden_states_dtype(ToWire(encoding_.hidden_states));
  node.set_partials_dtype(ToWire(encoding_.partials));
  return node;
}

void NodeLink::OnStatus(const internal::v1::WatchStatusResponse& status) {
  bool changed = false;
  {
    absl::MutexLock lock(&mutex_);
    changed = !up_ || node_state_ != status.state() || status.has_description();
    up_ = true;
    node_state_ = status.state();
    if (status.has_description()) {
      auto description = std::make_shared<v1::NodeDescription>(status.description());
      MakeTextsPrintable(description.get());
      description_ = std::move(description);
      refused_ = description_->fingerprint() != fingerprint_;
    }
    reason_.clear();
    if (refused_) {
      reason_ = absl::StrCat("node ", address_, " serves model ", description_->fingerprint(),
                             ", this router ", fingerprint_,
                             "; start the node with the router's checkpoint");
    } else if (node_state_ == v1::NODE_STATE_FAILED && description_ != nullptr) {
      reason_ = description_->message();
    }
  }
  if (changed) {
    on_change_();
  }
}

void NodeLink::OnFrame(Frame frame) {
  ClearAndKeepStatus(&answer_.message);
  if (const absl::Status status = DecodeTensorMessage(frame, &answer_); !status.ok()) {
    // Whose answer it was cannot be told, so nothing in flight can be trusted to end.
    const std::string what =
        absl::StrCat("node ", address_, " sent an answer that cannot be read: ", status.message());
    LoseAll(encoding_.checksums ? absl::DataLossError(what) : absl::UnavailableError(what));
    return;
  }
  if (const absl::Status status = CheckChecksum(); !status.ok()) {
    // Here, too: the number of the batch may be what changed.
    CountFault(NodeFault::kChecksum);
    LoseAll(status);
  } else {
    OnAnswer();
  }
  answer_.tensor = {};  // Shares the frame.
}

absl::Status NodeLink::CheckChecksum() const {
  const internal::v1::ComputeResponse& message = answer_.message;
  const absl::StatusCode code = FromWire(message.status()).code();
  // What this router sends is valid when it is sent.
  if (code == absl::StatusCode::kDataLoss ||
      (encoding_.checksums && code == absl::StatusCode::kInvalidArgument)) {
    return absl::DataLossError(absl::StrCat("node ", address_, ": ", message.status().message()));
  }
  if (message.has_checksum() &&
      (!answer_.has_tensor || message.checksum() != ChecksumOf(message, answer_.tensor))) {
    return absl::DataLossError(
        absl::StrCat("node ", address_, ": the checksum of an answer does not fit its bytes"));
  }
  return absl::OkStatus();
}

void NodeLink::OnAnswer() {
  const internal::v1::ComputeResponse& message = answer_.message;
  std::shared_ptr<NodeBatch> batch;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = in_flight_.find(message.batch_id());
    if (it == in_flight_.end()) {
      return;  // Given up before; its assignments went elsewhere.
    }
    batch = it->second;
  }
  absl::Status status = FromWire(message.status());
  if (status.ok()) {
    status = batch->CheckContinues(answer_);
  }
  if (status.ok()) {
    batch->Receive(answer_.tensor);
    answer_.tensor = {};
    if (!batch->complete()) {
      return;
    }
    batch->queue_us = message.queue_us();
    batch->compute_us = message.compute_us();
  }
  if (TakeAnswered(message.batch_id()) != nullptr) {
    const bool lost = RetryElsewhere(status.code());
    batch->Done(status.ok() ? status : WithContext(absl::StrCat("node ", address_), status), lost);
  }
}

void NodeLink::OnDisconnected(const absl::Status& why) {
  bool was_up = false;
  {
    absl::MutexLock lock(&mutex_);
    was_up = up_;
    up_ = false;
    reason_ = std::string(why.message());
    if (was_up) {
      ++disconnects_;
    }
  }
  if (was_up) {
    // First the new placement, so that what was lost is planned without this node.
    on_change_();
    LoseAll(absl::UnavailableError(
        absl::StrCat("node ", address_, " is gone: ", std::string(why.message()))));
  }
}

}  // namespace expertmesh::mesh
