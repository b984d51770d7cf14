#include "router_service/batch/frame_encoder.h"

#include <algorithm>

#include "common/base/message_bytes.h"
#include "common/wire/frame_checksum.h"
#include "common/wire/tensor_copy.h"
#include "common/wire/tensor_encode.h"
#include "common/wire/wire_dtype.h"

namespace expertmesh::batch {
namespace {

// Room for the fields of a frame that are not rows.
constexpr uint64_t kFrameHeaderBytes = 4096;

// Bytes that a row of `plan` takes in a frame, at most.
uint64_t RowCost(const plan::NodePlan& plan, Dtype dtype, size_t d_model) {
  uint64_t most = 0;
  for (size_t row = 0; row < plan.rows.size(); ++row) {
    most = std::max<uint64_t>(most, plan.row_begin[row + 1] - plan.row_begin[row]);
  }
  // An assignment takes up to 5 bytes of id and 4 of weight, a row up to 5 more for its count.
  return WireRowBytes(dtype, d_model) + 9 * most + 5;
}

// Measures what encoding costs, where the link's type is narrower than the rows'.
void ObserveError(const Batch& batch, const plan::NodePlan& plan, uint64_t batch_id, Dtype dtype) {
  const BatchEnvironment& environment = *batch.environment;
  if (!IsLossy(environment.activation_dtype, dtype)) {
    return;
  }
  // One row is cheap, and over many batches each place has its turn.
  const size_t row = plan.rows[batch_id % plan.rows.size()];
  environment.metrics->hidden_states_error.Observe(
      batch.layer_index(), EncodingError(environment.activation_dtype, batch.Row(row),
                                         environment.d_model, dtype, environment.buffers));
}

// All of the plan's rows as `dtype`: gathered and converted in one step.
TensorFrame Convert(const Batch& batch, const plan::NodePlan& plan, Dtype dtype) {
  const BatchEnvironment& environment = *batch.environment;
  TensorFrame converted = EncodeRows(environment.activation_dtype, batch.hidden_states->data(),
                                     plan.rows, environment.d_model, dtype, environment.buffers);
  CountCopiedTensorBytes(converted.data.size());
  return converted;
}

// Rows [begin, end) of the plan as they go over the link. `converted`: all of them, when the link's
// type is not that of the activations.
TensorFrame HiddenStates(const Batch& batch, const plan::NodePlan& plan,
                         const TensorFrame& converted, uint32_t begin, uint32_t end) {
  if (!converted.data.empty()) {
    return RowsOf(converted, begin, end - begin);
  }
  const BatchEnvironment& environment = *batch.environment;
  TensorFrame rows{environment.activation_dtype, end - begin, environment.d_model, {}};
  SelectRows(batch.hidden_states, environment.row_bytes(),
             absl::MakeConstSpan(plan.rows).subspan(begin, end - begin), environment.buffers,
             &rows.data);
  return rows;
}

}  // namespace

std::vector<uint32_t> RowsBeyond(const Batch& batch, const plan::NodePlan& plan, Dtype dtype) {
  const BatchEnvironment& environment = *batch.environment;
  const Dtype activation = environment.activation_dtype;
  std::vector<uint32_t> beyond;
  for (const uint32_t row : plan.rows) {
    if (HasOverflow(activation, batch.Row(row), environment.d_model, dtype)) {
      beyond.push_back(row);
    }
  }
  if (!beyond.empty()) {
    environment.metrics->hidden_states_overflow.Count(
        batch.layer_index(), beyond.size(),
        LargestFinite(activation, batch.Row(beyond.front()), environment.d_model), NameOf(dtype),
        NameOf(activation));
  }
  return beyond;
}

void FrameEncoder::DescribeBatch(const Batch& batch, const plan::NodePlan& plan,
                                 const Address& address) {
  request_.Clear();
  request_.set_batch_id(address.batch_id);
  request_.set_layer(batch.layer_index());
  request_.set_epoch(address.epoch);
  request_.set_total_rows(static_cast<uint32_t>(plan.rows.size()));
  request_.set_partials_dtype(ToWire(address.encoding.partials));
  request_.set_per_assignment(batch.environment->layout->per_assignment());
  if (batch.lead != nullptr) {
    const tracing::RequestTrace& lead = batch.lead->trace();
    const auto traceparent =
        trace::FormatTraceparent({lead.span.trace_id, address.span, lead.span.flags});
    request_.mutable_traceparent()->assign(traceparent.data(), traceparent.size());
    request_.mutable_tracestate()->assign(lead.tracestate.data(), lead.tracestate.size());
  }
}

void FrameEncoder::DescribeRows(const plan::NodePlan& plan, uint32_t begin, uint32_t end) {
  request_.set_first_row(begin);
  request_.clear_assignments_per_row();
  for (uint32_t row = begin; row < end; ++row) {
    request_.add_assignments_per_row(plan.row_begin[row + 1] - plan.row_begin[row]);
  }
  const uint32_t first = plan.row_begin[begin];
  const uint32_t last = plan.row_begin[end];
  request_.mutable_expert_ids()->Assign(plan.expert_ids.begin() + first,
                                        plan.expert_ids.begin() + last);
  request_.mutable_expert_weights()->Assign(plan.expert_weights.begin() + first,
                                            plan.expert_weights.begin() + last);
}

std::vector<Frame>& FrameEncoder::Encode(const Batch& batch, const plan::NodePlan& plan,
                                         const Address& address) {
  const BatchEnvironment& environment = *batch.environment;
  const Dtype dtype = address.encoding.hidden_states;
  ObserveError(batch, plan, address.batch_id, dtype);
  TensorFrame converted;
  if (dtype != environment.activation_dtype) {
    converted = Convert(batch, plan, dtype);
  }
  const uint32_t total = static_cast<uint32_t>(plan.rows.size());
  const uint64_t room =
      address.frame_limit > kFrameHeaderBytes ? address.frame_limit - kFrameHeaderBytes : 0;
  const uint32_t rows_per_frame = static_cast<uint32_t>(
      std::max<uint64_t>(1, room / RowCost(plan, dtype, environment.d_model)));
  const absl::Time now = environment.clock->Now();
  const absl::Time deadline = batch.requests.LatestDeadline(now);

  frames_.clear();
  DescribeBatch(batch, plan, address);
  if (deadline != absl::InfiniteFuture()) {
    request_.set_timeout_us(absl::ToInt64Microseconds(deadline - now));
  }
  for (uint32_t begin = 0; begin < total; begin += rows_per_frame) {
    const uint32_t end = std::min(total, begin + rows_per_frame);
    DescribeRows(plan, begin, end);
    const TensorFrame tensor = HiddenStates(batch, plan, converted, begin, end);
    if (address.encoding.checksums) {
      request_.set_checksum(ChecksumOf(request_, tensor));
    }
    frames_.push_back(EncodeTensorMessage(request_, &tensor, environment.buffers));
  }
  return frames_;
}

size_t FrameEncoder::MemoryBytes() const {
  // Counted by hand: SpaceUsedLong() reflects on every field, and this is asked for every batch.
  return static_cast<size_t>(request_.assignments_per_row().Capacity() +
                             request_.expert_ids().Capacity() +
                             request_.expert_weights().Capacity()) *
             sizeof(uint32_t) +
         frames_.capacity() * sizeof(Frame);
}

}  // namespace expertmesh::batch
