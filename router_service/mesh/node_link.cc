#include "router_service/mesh/node_link.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/message_bytes.h"
#include "common/wire/frame_checksum.h"
#include "common/wire/status.h"
#include "common/wire/tensor_copy.h"

namespace expertmesh::mesh {
namespace {

// Why a frame does not continue `batch`; OK when it does.
absl::Status CheckPartials(const NodeBatch& batch,
                           const TensorMessage<v1::ComputeResponse>& answer) {
  const uint64_t rows = answer.tensor.rows;
  const bool fits =
      answer.tensor.dtype == batch.partials_dtype || answer.tensor.dtype == DType::kF32;
  if (!answer.has_tensor || !fits || answer.tensor.cols != batch.d_model || rows == 0 ||
      answer.message.first_row() != batch.received || rows > batch.answer_rows() - batch.received) {
    return absl::InternalError(absl::StrCat(
        "partials are rows ", answer.message.first_row(), " + ", rows, " of ", answer.tensor.cols,
        ", ", NameOf(answer.tensor.dtype), "; expected ", NameOf(batch.partials_dtype),
        " rows from ", batch.received, " of ", batch.answer_rows(), ", d_model ", batch.d_model));
  }
  return absl::OkStatus();
}

// Whether another node might do better.
bool RetryElsewhere(absl::StatusCode code) {
  return code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kResourceExhausted ||
         code == absl::StatusCode::kFailedPrecondition || code == absl::StatusCode::kInternal ||
         code == absl::StatusCode::kDataLoss;
}

// Batches in flight that there is room for from the start.
constexpr size_t kUsualInFlight = 64;

// Clear() would free the status inside; one that is not set means OK, as an empty one does.
void Empty(v1::ComputeResponse* message) {
  std::unique_ptr<v1::Status> status(message->release_status());
  message->Clear();
  if (status != nullptr && status->message().empty()) {
    status->Clear();
    message->set_allocated_status(status.release());
  }
}

}  // namespace

void NodeBatch::Receive(const TensorFrame& rows) {
  if (rows.dtype == DType::kF32 && kept_dtype != DType::kF32) {
    const size_t received_elements = size_t{received} * d_model;
    auto wider = std::make_shared<AlignedBuffer>(answer_rows() * d_model * sizeof(float));
    ConvertElements(kept_dtype, partials->data(), DType::kF32, wider->data(), received_elements);
    partials = std::move(wider);
    kept_dtype = DType::kF32;
  }
  const size_t row_bytes = d_model * BytesOf(kept_dtype);
  uint8_t* const target = partials->data() + received * row_bytes;
  const bool finite = DecodeRows(rows, kept_dtype, target);
  CountCopiedTensorBytes(rows.data.size());
  for (uint32_t row = 0; !finite && row < rows.rows; ++row) {
    if (HasNonFinite(kept_dtype, target + row * row_bytes, d_model)) {
      nonfinite_rows.push_back(received + row);
    }
  }
  received += static_cast<uint32_t>(rows.rows);
}

NodeLink::NodeLink(NodeIndex index, std::string address, std::string fingerprint,
                   WireEncoding encoding, metrics::RouterMetrics* metrics,
                   std::function<void()> on_change)
    : index_(index),
      address_(std::move(address)),
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

uint64_t NodeLink::NextBatchId() {
  absl::MutexLock lock(&mutex_);
  return next_batch_id_++;
}

void NodeLink::Send(uint64_t batch_id, std::shared_ptr<NodeBatch> batch, absl::Span<Frame> frames) {
  {
    absl::MutexLock lock(&mutex_);
    rows_in_flight_ += batch->plan.rows.size();
    in_flight_.emplace(batch_id, batch);
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
  const auto it = in_flight_.find(batch_id);
  if (it == in_flight_.end()) {
    return nullptr;
  }
  std::shared_ptr<NodeBatch> batch = std::move(it->second);
  in_flight_.erase(it);
  rows_in_flight_ -= batch->plan.rows.size();
  return batch;
}

void NodeLink::LoseAll(const absl::Status& why) {
  absl::flat_hash_map<uint64_t, std::shared_ptr<NodeBatch>> lost;
  {
    absl::MutexLock lock(&mutex_);
    lost.swap(in_flight_);
    rows_in_flight_ = 0;
  }
  for (const auto& [id, batch] : lost) {
    batch->Done(why, true);
  }
}

std::shared_ptr<const v1::DescribeResponse> NodeLink::Offer(bool* last_resort) const {
  absl::MutexLock lock(&mutex_);
  if (!up_ || refused_ || description_ == nullptr) {
    return nullptr;
  }
  *last_resort = draining_ || !listed_ || node_state_ == v1::NODE_STATE_DRAINING;
  return description_;
}

plan::NodeLoad NodeLink::Load() const {
  absl::MutexLock lock(&mutex_);
  plan::NodeLoad load;
  load.rows_in_flight = rows_in_flight_;
  load.max_batch_rows = description_ == nullptr ? 0 : description_->max_batch_rows();
  return load;
}

uint64_t NodeLink::MaxFrameBytes() const {
  absl::MutexLock lock(&mutex_);
  return description_ == nullptr ? 0 : description_->max_frame_bytes();
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

v1::NodeLink NodeLink::State() const {
  if (!up_) {
    return v1::NODE_LINK_DOWN;
  }
  if (refused_) {
    return v1::NODE_LINK_REFUSED;
  }
  if (draining_ || !listed_ || node_state_ == v1::NODE_STATE_DRAINING) {
    return v1::NODE_LINK_DRAINING;
  }
  return v1::NODE_LINK_UP;
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
  node.set_link(State());
  node.set_reason(reason_);
  if (description_ != nullptr) {
    *node.mutable_description() = *description_;
  }
  node.set_batches_in_flight(static_cast<uint32_t>(in_flight_.size()));
  node.set_rows_in_flight(rows_in_flight_);
  node.set_disconnects(disconnects_);
  node.set_faulty_answers(faulty_answers_);
  node.set_disagreements(disagreements_);
  node.set_hidden_states_dtype(ToWire(encoding_.hidden_states));
  node.set_partials_dtype(ToWire(encoding_.partials));
  return node;
}

void NodeLink::OnStatus(const v1::WatchStatusResponse& status) {
  bool changed = false;
  {
    absl::MutexLock lock(&mutex_);
    changed = !up_ || node_state_ != status.state() || status.has_description();
    up_ = true;
    node_state_ = status.state();
    if (status.has_description()) {
      description_ = std::make_shared<const v1::DescribeResponse>(status.description());
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
  Empty(&answer_.message);
  if (const absl::Status status = DecodeTensorMessage(frame, &answer_); !status.ok()) {
    // Whose answer it was cannot be told, so nothing in flight can be trusted to end.
    const std::string what =
        absl::StrCat("node ", address_, " answered nonsense: ", status.message());
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
  const v1::ComputeResponse& message = answer_.message;
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
  const v1::ComputeResponse& message = answer_.message;
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
    status = CheckPartials(*batch, answer_);
  }
  if (status.ok()) {
    batch->Receive(answer_.tensor);
    answer_.tensor = {};
    if (batch->received < batch->answer_rows()) {
      return;
    }
    batch->queue_us = message.queue_us();
    batch->compute_us = message.compute_us();
  }
  if (Take(message.batch_id()) != nullptr) {
    const bool lost = RetryElsewhere(status.code());
    batch->Done(status.ok() ? status
                            : absl::Status(status.code(),
                                           absl::StrCat("node ", address_, ": ", status.message())),
                lost);
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
