#include "router_service/mesh/node_link.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/check.h"
#include "common/base/status_context.h"
#include "common/wire/frame_checksum.h"
#include "common/wire/status.h"

namespace expertmesh::mesh {
namespace {

// Bytes of an answer beside its partials: a status at most.
constexpr size_t kMostOfAnswer = 64 << 10;
constexpr absl::Duration kLogInterval = absl::Seconds(1);

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

NodeLink::NodeLink(std::string address, NodeLinkOptions options, metrics::RouterMetrics* metrics,
                   TimerQueue* timers, Clock* clock, std::function<void()> on_change)
    : address_(std::move(address)),
      options_(std::move(options)),
      metrics_(metrics),
      series_(metrics->TakeNode(address_, NodeFaultNames())),
      clock_(clock),
      on_change_(std::move(on_change)),
      log_(kLogInterval, timers, clock, [](const std::string& line) { spdlog::warn("{}", line); }),
      down_since_(clock->Now()),
      health_(options_.health) {}

NodeLink::~NodeLink() {
  Close();
  metrics_->GiveBackNode(address_, NodeFaultNames());
}

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
    const absl::Time now = clock_->Now();
    absl::MutexLock lock(&mutex_);
    in_flight_.Add(batch_id, std::move(batch), now);
    rows_in_flight_.store(in_flight_.rows(), std::memory_order_relaxed);
  }
  absl::Status status;
  {
    absl::MutexLock lock(&send_mutex_);
    if (connection_ == nullptr) {
      status = absl::UnavailableError(absl::StrCat("node ", address_, " is not connected"));
      frames = {};
    }
    for (Frame& frame : frames) {
      series_.sent_bytes.Increment(static_cast<double>(frame.size()));
      status = connection_->Send(std::move(frame));
      if (!status.ok()) {
        break;
      }
    }
  }
  if (!status.ok()) {
    if (const std::shared_ptr<NodeBatch> taken = TakeUnsent(batch_id)) {
      taken->Done(status);
    }
  }
}

template <typename Request, typename Done>
void NodeLink::Call(void (NodeConnection::*method)(const Request&, absl::Duration, Done),
                    const Request& request, absl::Duration timeout, Done done) {
  {
    absl::MutexLock lock(&send_mutex_);
    if (connection_ != nullptr) {
      (connection_.get()->*method)(request, timeout, std::move(done));
      return;
    }
  }
  done(absl::UnavailableError(absl::StrCat("node ", address_, " is not connected")));
}

void NodeLink::LoadExperts(const internal::v1::LoadExpertsRequest& request, absl::Duration timeout,
                           LoadDone done) {
  Call(&NodeConnection::LoadExperts, request, timeout, std::move(done));
}

void NodeLink::UnloadExperts(const internal::v1::UnloadExpertsRequest& request,
                             absl::Duration timeout, UnloadDone done) {
  Call(&NodeConnection::UnloadExperts, request, timeout, std::move(done));
}

std::shared_ptr<NodeBatch> NodeLink::TakeUnsent(uint64_t batch_id) {
  absl::MutexLock lock(&mutex_);
  const InFlight::Entry* const entry = in_flight_.Find(batch_id);
  if (entry == nullptr || entry->receiving) {
    return nullptr;  // A node that answers what it has not got: overdue before long.
  }
  std::shared_ptr<NodeBatch> batch = in_flight_.Take(batch_id).batch;
  rows_in_flight_.store(in_flight_.rows(), std::memory_order_relaxed);
  return batch;
}

std::shared_ptr<NodeBatch> NodeLink::TakeAnswered(uint64_t batch_id, const absl::Status& status) {
  const absl::Time now = clock_->Now();
  absl::MutexLock lock(&mutex_);
  InFlight::Entry entry = in_flight_.Take(batch_id);
  rows_in_flight_.store(in_flight_.rows(), std::memory_order_relaxed);
  if (entry.batch != nullptr && status.ok()) {
    last_answer_ = now;
    health_.Served(now - entry.sent, entry.assignments);
    const NodeBatch& batch = *entry.batch;
    if (batch.trace.sampled()) {
      series_.call_seconds.Observe(now - entry.sent, batch.trace, absl::Now());
    } else {
      series_.call_seconds.Observe(now - entry.sent);
    }
    computed_assignments_ += batch.assignments;
    compute_us_ += batch.report.compute_us;
    const double there =
        static_cast<double>(batch.report.queue_us) + static_cast<double>(batch.report.compute_us);
    link_time_.Add(batch.assignments, now - entry.sent - absl::Microseconds(there));
  } else if (entry.batch != nullptr && !SpeaksAgainstNode(status.code())) {
    health_.Refused();
  }
  NodeConnection* const connection = caller_.load();
  // With the lock: a batch that comes is sent after this, which ends the pause.
  if (in_flight_.empty() && connection != nullptr) {
    connection->PauseReading();
  }
  return std::move(entry.batch);
}

void NodeLink::LoseAll(const absl::Status& why) {
  std::vector<std::shared_ptr<NodeBatch>> lost;
  {
    absl::MutexLock lock(&mutex_);
    lost = in_flight_.TakeAll();
    rows_in_flight_.store(0, std::memory_order_relaxed);
  }
  for (const std::shared_ptr<NodeBatch>& batch : lost) {
    batch->Done(why);
  }
}

void NodeLink::OnFrame(Frame frame) {
  series_.received_bytes.Increment(static_cast<double>(frame.size()));
  ClearAndKeepStatus(&answer_.message);
  if (const absl::Status status = DecodeTensorMessage(frame, &answer_, kMostOfAnswer);
      !status.ok()) {
    // Whose answer it was cannot be told, so nothing in flight can be trusted to end.
    const std::string what =
        absl::StrCat("node ", address_, " sent an answer that cannot be read: ", status.message());
    CountFault(NodeFault::kUnreadable);
    LoseAll(options_.encoding.checksums ? absl::DataLossError(what) : absl::UnavailableError(what));
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
      (options_.encoding.checksums && code == absl::StatusCode::kInvalidArgument)) {
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
  const uint64_t batch_id = message.batch_id();
  std::shared_ptr<NodeBatch> batch;
  {
    absl::MutexLock lock(&mutex_);
    InFlight::Entry* const entry = in_flight_.Find(batch_id);
    if (entry == nullptr) {
      return;  // Given up before; its assignments went elsewhere.
    }
    batch = entry->batch;
    entry->receiving = true;
  }
  absl::Status status = FromWire(message.status());
  std::optional<NodeFault> fault;
  if (!status.ok() && SpeaksAgainstNode(status.code())) {
    fault = NodeFault::kError;
  } else if (status.ok()) {
    status = batch->CheckContinues(answer_);
    fault = status.ok() ? std::nullopt : std::make_optional(NodeFault::kUnreadable);
  }
  if (status.ok()) {
    batch->Receive(answer_.tensor);
    answer_.tensor = {};
    if (!batch->complete()) {
      absl::MutexLock lock(&mutex_);
      if (InFlight::Entry* const entry = in_flight_.Find(batch_id)) {
        entry->receiving = false;
      }
      return;
    }
    batch->report = {message.receive_us(), message.queue_us(), message.compute_us(),
                     message.merge_id(), message.merged_batches()};
  }
  if (fault) {
    CountFault(*fault);
  }
  if (TakeAnswered(batch_id, status) != nullptr) {
    batch->Done(status.ok() ? status : WithContext(absl::StrCat("node ", address_), status));
  }
}

}  // namespace expertmesh::mesh
