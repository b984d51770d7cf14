#include "expert_service/batch_assembly.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/wire/extensions.h"
#include "common/wire/frame_checksum.h"
#include "common/wire/message_size.h"
#include "common/wire/wire_dtype.h"

namespace expertmesh::node {
namespace {

// Enough for every batch a well-behaved router can have in flight when it errs.
constexpr size_t kFailedRemembered = 4096;
// Experts named in a message.
constexpr size_t kNamedExperts = 16;
// What an unfinished batch costs besides its bytes.
constexpr size_t kBatchOverhead = 1024;

absl::Status Invalid(absl::string_view message) { return absl::InvalidArgumentError(message); }

// For an answer to a frame that does not decode: whatever of it there is. Errors only, so the copy
// does not matter.
// Bytes beside the tensor, read by the network thread: for each row its assignments, each an id
// and a weight, of which there are rarely more than eight.
constexpr size_t kMostOtherBytes = 64 << 10;
constexpr size_t kMostOtherBytesPerRow = 256;

absl::StatusOr<TensorMessage<internal::v1::ComputeRequest>> Decode(const Frame& frame,
                                                                   size_t max_rows) {
  absl::StatusOr<TensorMessage<internal::v1::ComputeRequest>> request =
      DecodeTensorMessage<internal::v1::ComputeRequest>(
          frame, kMostOtherBytes + kMostOtherBytesPerRow * max_rows);
  if (absl::IsOutOfRange(request.status())) {
    return Invalid(absl::StrCat(request.status().message(), "; send fewer rows in one frame"));
  }
  return request;
}

internal::v1::ComputeRequest RecoverFields(const Frame& frame) {
  Frame begin;
  frame.AppendTo(0, std::min(frame.size(), kMostOtherBytes), &begin);
  internal::v1::ComputeRequest request;
  // The result does not matter: fields read before the malformed byte stay set.
  (void)request.ParsePartialFromString(begin.Flatten());
  return request;
}

absl::Status CheckAssignments(const internal::v1::ComputeRequest& message, uint64_t rows,
                              const MoeLayerDescription& layer) {
  // The shared experts included, where the layer has any.
  const uint32_t num_experts = layer.hostable_experts();
  if (static_cast<uint64_t>(message.assignments_per_row_size()) != rows) {
    return Invalid(absl::StrCat("assignments_per_row has ", message.assignments_per_row_size(),
                                " entries; hidden_states has ", rows, " rows"));
  }
  uint64_t sum = 0;
  for (const uint32_t count : message.assignments_per_row()) {
    if (count < 1 || count > num_experts) {
      return Invalid(absl::StrCat("assignments_per_row has an entry ", count,
                                  "; each must be from 1 to the number of experts, ", num_experts));
    }
    sum += count;
  }
  if (static_cast<uint64_t>(message.expert_ids_size()) != sum) {
    return Invalid(absl::StrCat("expert_ids has ", message.expert_ids_size(),
                                " entries; assignments_per_row adds up to ", sum));
  }
  if (static_cast<uint64_t>(message.expert_weights_size()) != sum) {
    return Invalid(absl::StrCat("expert_weights has ", message.expert_weights_size(),
                                " entries; assignments_per_row adds up to ", sum));
  }
  for (const uint32_t expert : message.expert_ids()) {
    if (expert >= num_experts) {
      return Invalid(absl::StrCat("expert_ids has an entry ", expert, "; layer ", layer.layer,
                                  " has ", num_experts, " experts"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckChecksum(const TensorMessage<internal::v1::ComputeRequest>& request) {
  const internal::v1::ComputeRequest& message = request.message;
  if (!message.has_checksum() ||
      (request.has_tensor && message.checksum() == ChecksumOf(message, request.tensor))) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(
      "checksum is ", absl::Hex(message.checksum(), absl::kZeroPad16), " in the frame from row ",
      message.first_row(), " of batch ", message.batch_id(),
      ", and its bytes have another; they changed on their way, send the batch again"));
}

absl::StatusOr<Dtype> PartialsDtype(const internal::v1::ComputeRequest& message) {
  if (message.partials_dtype() == v1::DTYPE_UNSPECIFIED) {
    return Dtype::kF32;
  }
  return FromWire(message.partials_dtype(), "partials_dtype");
}

void AppendFrame(TensorMessage<internal::v1::ComputeRequest>* request, size_t frame_bytes,
                 ReceivedBatch* batch) {
  const internal::v1::ComputeRequest& message = request->message;
  for (const uint32_t count : message.assignments_per_row()) {
    batch->row_begin.push_back(batch->row_begin.back() + count);
  }
  batch->expert_ids.insert(batch->expert_ids.end(), message.expert_ids().begin(),
                           message.expert_ids().end());
  batch->weights.insert(batch->weights.end(), message.expert_weights().begin(),
                        message.expert_weights().end());
  batch->parts.push_back(std::move(request->tensor));
  batch->bytes += frame_bytes;
}

}  // namespace

BatchAssembler::BatchAssembler(const AssemblyLimits& limits, const ModelDescription* model,
                               const HostedExperts* hosted, Clock* clock)
    : limits_(limits), model_(model), hosted_(hosted), clock_(clock) {}

BatchAssembler::Outcome BatchAssembler::Add(const Frame& frame) {
  Outcome outcome;
  absl::StatusOr<Request> request = Decode(frame, limits_.max_batch_rows);
  if (!request.ok()) {
    const internal::v1::ComputeRequest recovered = RecoverFields(frame);
    outcome.batch_id = recovered.batch_id();
    if (recovered.first_row() == 0 || !failed_.contains(outcome.batch_id)) {
      outcome.status = request.status();
      RemoveOpen(outcome.batch_id);
      RememberFailed(outcome.batch_id);
    }
    return outcome;
  }
  const internal::v1::ComputeRequest& message = request->message;
  const uint64_t batch_id = message.batch_id();
  outcome.batch_id = batch_id;
  const uint64_t last_row = uint64_t{message.first_row()} + request->tensor.rows;
  const bool last = last_row >= message.total_rows();
  if (failed_.contains(batch_id)) {
    if (message.first_row() != 0) {
      if (last) {
        failed_.erase(batch_id);
      }
      return outcome;
    }
    failed_.erase(batch_id);  // The id is used again.
  }
  outcome.status = CheckChecksum(*request);
  if (outcome.status.ok()) {
    outcome.status = AddToBatch(&*request, frame.size(), &outcome.batch);
  }
  if (!outcome.status.ok()) {
    RemoveOpen(batch_id);
    if (!last) {
      RememberFailed(batch_id);
    }
  }
  return outcome;
}

absl::Status BatchAssembler::AddToBatch(Request* request, size_t frame_bytes,
                                        std::unique_ptr<ReceivedBatch>* completed) {
  RETURN_IF_ERROR(CheckFrame(*request, frame_bytes));
  const internal::v1::ComputeRequest& message = request->message;
  ASSIGN_OR_RETURN(ReceivedBatch * batch, OpenOrFind(message));
  RETURN_IF_ERROR(CheckContinues(*batch, *request));
  const absl::Time now = clock_->Now();
  if (now >= batch->deadline) {
    return absl::DeadlineExceededError(
        absl::StrCat("timeout_us: the deadline of batch ", batch->batch_id, " has passed"));
  }
  const bool complete = message.first_row() + request->tensor.rows == batch->total_rows;
  if (!complete && open_bytes_ + frame_bytes > limits_.max_open_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "unfinished batches of this stream hold ", open_bytes_, " bytes, and ", frame_bytes,
        " more pass the limit of ", limits_.max_open_bytes, "; finish some first"));
  }
  AppendFrame(request, frame_bytes, batch);
  open_bytes_ += frame_bytes;
  if (!complete) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(PinExperts(batch));
  batch->times.complete = now;
  const auto found = open_.find(batch->batch_id);
  std::unique_ptr<ReceivedBatch> taken = std::move(found->second);
  open_.erase(found);
  open_bytes_ -= taken->bytes;
  *completed = std::move(taken);
  return absl::OkStatus();
}

absl::Status BatchAssembler::CheckFrame(const Request& request, size_t frame_bytes) const {
  const internal::v1::ComputeRequest& message = request.message;
  if (frame_bytes > limits_.max_frame_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the frame has ",
        TooLargeText({&message, "hidden_states", request.tensor.data.size(), frame_bytes},
                     limits_.max_frame_bytes),
        " (max_frame_bytes of this node); cut the batch smaller"));
  }
  const MoeLayerDescription* layer = model_->FindLayer(message.layer());
  if (layer == nullptr) {
    return Invalid(absl::StrCat("layer ", message.layer(),
                                " is not a MoE layer of this model; DescribeModel lists them"));
  }
  RETURN_IF_ERROR(RefuseExtensions(message.extensions()));
  if (message.total_rows() < 1 || message.total_rows() > limits_.max_batch_rows) {
    return Invalid(absl::StrCat("total_rows is ", message.total_rows(), "; must be from 1 to ",
                                limits_.max_batch_rows, " (max_batch_rows)"));
  }
  RETURN_IF_ERROR(request.tensor_status);
  if (!request.has_tensor) {
    return Invalid("hidden_states is missing; send [rows, d_model]");
  }
  if (request.tensor.rows == 0) {
    return Invalid("hidden_states has 0 rows; send at least 1 in each frame");
  }
  if (request.tensor.cols != layer->expert.d_model) {
    return Invalid(absl::StrCat("hidden_states has ", request.tensor.cols, " columns; d_model is ",
                                layer->expert.d_model));
  }
  if (message.first_row() + request.tensor.rows > message.total_rows()) {
    return Invalid(absl::StrCat("first_row ", message.first_row(), " and ", request.tensor.rows,
                                " rows of hidden_states pass total_rows ", message.total_rows()));
  }
  return CheckAssignments(message, request.tensor.rows, *layer);
}

absl::StatusOr<ReceivedBatch*> BatchAssembler::OpenOrFind(
    const internal::v1::ComputeRequest& message) {
  const auto found = open_.find(message.batch_id());
  if (found != open_.end()) {
    return found->second.get();
  }
  if (message.first_row() != 0) {
    return Invalid(absl::StrCat("first_row is ", message.first_row(), " in the first frame of ",
                                "batch ", message.batch_id(), "; frames go in order from row 0"));
  }
  auto batch = std::make_unique<ReceivedBatch>();
  ASSIGN_OR_RETURN(batch->partials_dtype, PartialsDtype(message));
  batch->batch_id = message.batch_id();
  batch->layer = message.layer();
  batch->total_rows = message.total_rows();
  batch->per_assignment = message.per_assignment();
  batch->checksums = message.has_checksum();
  batch->times.arrived = clock_->Now();
  if (message.has_timeout_us()) {
    batch->deadline = batch->times.arrived + absl::Microseconds(message.timeout_us());
  }
  batch->row_begin.push_back(0);
  batch->bytes = kBatchOverhead;
  open_bytes_ += batch->bytes;
  return open_.emplace(message.batch_id(), std::move(batch)).first->second.get();
}

absl::Status BatchAssembler::CheckContinues(const ReceivedBatch& batch,
                                            const Request& request) const {
  const internal::v1::ComputeRequest& message = request.message;
  const size_t received = batch.row_begin.size() - 1;
  if (message.first_row() != received) {
    return Invalid(absl::StrCat("first_row is ", message.first_row(), "; batch ", batch.batch_id,
                                " goes on at row ", received,
                                " (batch_id must be unique among batches in flight)"));
  }
  if (message.layer() != batch.layer) {
    return Invalid(absl::StrCat("layer is ", message.layer(), "; batch ", batch.batch_id,
                                " began with layer ", batch.layer));
  }
  if (message.total_rows() != batch.total_rows) {
    return Invalid(absl::StrCat("total_rows is ", message.total_rows(), "; batch ", batch.batch_id,
                                " began with ", batch.total_rows));
  }
  ASSIGN_OR_RETURN(const Dtype partials_dtype, PartialsDtype(message));
  if (partials_dtype != batch.partials_dtype) {
    return Invalid(absl::StrCat("partials_dtype is ", NameOf(partials_dtype), "; batch ",
                                batch.batch_id, " began with ", NameOf(batch.partials_dtype)));
  }
  if (message.per_assignment() != batch.per_assignment) {
    return Invalid(absl::StrCat("per_assignment is ", message.per_assignment(), "; batch ",
                                batch.batch_id, " began with ", batch.per_assignment));
  }
  // Every one of them is a row of the answer.
  const size_t assignments = batch.expert_ids.size() + message.expert_ids().size();
  if (batch.per_assignment && assignments > limits_.max_batch_rows) {
    return Invalid(absl::StrCat("expert_ids has ", assignments, " entries so far; a batch with ",
                                "per_assignment may have ", limits_.max_batch_rows,
                                " (max_batch_rows); cut it smaller"));
  }
  return absl::OkStatus();
}

absl::Status BatchAssembler::PinExperts(ReceivedBatch* batch) const {
  batch->hosted = hosted_->FindLayer(batch->layer);
  std::vector<uint32_t> missing;
  for (const uint32_t expert : batch->expert_ids) {
    if (batch->hosted == nullptr || batch->hosted->experts[expert] == nullptr) {
      missing.push_back(expert);
    }
  }
  if (missing.empty()) {
    return absl::OkStatus();
  }
  std::sort(missing.begin(), missing.end());
  missing.erase(std::unique(missing.begin(), missing.end()), missing.end());
  const size_t named = std::min(missing.size(), kNamedExperts);
  return absl::FailedPreconditionError(absl::StrCat(
      "layer ", batch->layer, ": this node does not hold experts ",
      absl::StrJoin(missing.begin(), missing.begin() + named, ","),
      named < missing.size() ? absl::StrCat(" and ", missing.size() - named, " more") : "",
      "; send them to a node that does"));
}

void BatchAssembler::RemoveOpen(uint64_t batch_id) {
  const auto found = open_.find(batch_id);
  if (found != open_.end()) {
    open_bytes_ -= found->second->bytes;
    open_.erase(found);
  }
}

void BatchAssembler::RememberFailed(uint64_t batch_id) {
  if (!failed_.insert(batch_id).second) {
    return;
  }
  failed_order_.push_back(batch_id);
  if (failed_order_.size() > kFailedRemembered) {
    failed_.erase(failed_order_.front());
    failed_order_.pop_front();
  }
}

}  // namespace expertmesh::node
