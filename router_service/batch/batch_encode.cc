// What a batch sends: the rows and assignments of one node's plan, cut into frames.
#include <algorithm>
#include <utility>

#include "common/base/message_bytes.h"
#include "common/wire/frame_checksum.h"
#include "common/wire/tensor_copy.h"
#include "common/wire/tensor_encode.h"
#include "router_service/batch/batch_run.h"

namespace expertmesh::batch {
namespace {

// Room for the fields of a frame that are not rows.
constexpr uint64_t kFrameHeaderBytes = 4096;

}  // namespace

void BatchRun::ObserveError(const plan::NodePlan& plan, uint64_t batch_id, DType dtype) const {
  const DType activation = environment_->activation_dtype;
  if (!IsLossy(activation, dtype)) {
    return;
  }
  // Of one row: cheap, and over many batches each place has its turn.
  const size_t row = plan.rows[batch_id % plan.rows.size()];
  const size_t d_model = environment_->d_model;
  environment_->metrics->hidden_states_error.Observe(
      layer_->description.layer,
      EncodingError(activation, hidden_states_->data() + row * d_model * BytesOf(activation),
                    d_model, dtype, environment_->buffers));
}

std::vector<uint32_t> BatchRun::RowsBeyond(const plan::NodePlan& plan, DType dtype) const {
  const DType activation = environment_->activation_dtype;
  const size_t d_model = environment_->d_model;
  const size_t row_bytes = d_model * BytesOf(activation);
  std::vector<uint32_t> beyond;
  for (const uint32_t row : plan.rows) {
    if (HasOverflow(activation, hidden_states_->data() + row * row_bytes, d_model, dtype)) {
      beyond.push_back(row);
    }
  }
  if (!beyond.empty()) {
    const uint8_t* const first = hidden_states_->data() + beyond.front() * row_bytes;
    environment_->metrics->hidden_states_overflow.Count(layer_->description.layer, beyond.size(),
                                                        LargestFinite(activation, first, d_model),
                                                        NameOf(dtype), NameOf(activation));
  }
  return beyond;
}

TensorFrame BatchRun::Convert(const plan::NodePlan& plan, DType dtype) const {
  TensorFrame converted =
      EncodeRows(environment_->activation_dtype, hidden_states_->data(), plan.rows,
                 environment_->d_model, dtype, environment_->buffers);
  CountCopiedTensorBytes(converted.data.size());
  return converted;
}

TensorFrame BatchRun::HiddenStates(const plan::NodePlan& plan, const TensorFrame& converted,
                                   uint32_t begin, uint32_t end) const {
  const DType activation = environment_->activation_dtype;
  if (!converted.data.empty()) {
    return RowsOf(converted, begin, end - begin);
  }
  const size_t d_model = environment_->d_model;
  TensorFrame rows{activation, end - begin, d_model, {}};
  SelectRows(hidden_states_, d_model * BytesOf(activation),
             absl::MakeConstSpan(plan.rows).subspan(begin, end - begin), environment_->buffers,
             &rows.data);
  return rows;
}

void BatchRun::DescribeBatch(const plan::NodePlan& plan, uint64_t batch_id, uint64_t epoch,
                             DType partials, v1::ComputeRequest* request) const {
  request->Clear();
  request->set_batch_id(batch_id);
  request->set_layer(layer_->description.layer);
  request->set_epoch(epoch);
  request->set_total_rows(static_cast<uint32_t>(plan.rows.size()));
  request->set_partials_dtype(ToWire(partials));
  request->set_per_assignment(environment_->strict);
  if (jobs_.size() == 1) {  // A batch of several requests belongs to no single trace.
    const v1::ForwardRequest& only = jobs_.front()->request();
    request->set_traceparent(only.traceparent());
    request->set_tracestate(only.tracestate());
  }
}

void BatchRun::EncodeFrames(const plan::NodePlan& plan, uint64_t batch_id, uint64_t epoch,
                            mesh::WireEncoding encoding, uint64_t frame_limit,
                            std::vector<Frame>* frames) const {
  ObserveError(plan, batch_id, encoding.hidden_states);
  TensorFrame converted;
  if (encoding.hidden_states != environment_->activation_dtype) {
    converted = Convert(plan, encoding.hidden_states);
  }
  const size_t row_bytes = WireRowBytes(encoding.hidden_states, environment_->d_model);
  const uint32_t total = static_cast<uint32_t>(plan.rows.size());
  // An assignment takes up to 5 bytes of id and 4 of weight, a row up to 5 more for its count.
  uint64_t most = 0;
  for (uint32_t row = 0; row < total; ++row) {
    most = std::max<uint64_t>(most, plan.row_begin[row + 1] - plan.row_begin[row]);
  }
  const uint64_t row_cost = row_bytes + 9 * most + 5;
  const uint64_t room = frame_limit > kFrameHeaderBytes ? frame_limit - kFrameHeaderBytes : 0;
  const uint32_t rows_per_frame = static_cast<uint32_t>(std::max<uint64_t>(1, room / row_cost));
  const absl::Time deadline = LatestDeadline();

  thread_local v1::ComputeRequest request;  // Grows to the largest frame.
  DescribeBatch(plan, batch_id, epoch, encoding.partials, &request);
  for (uint32_t begin = 0; begin < total; begin += rows_per_frame) {
    const uint32_t end = std::min(total, begin + rows_per_frame);
    request.set_first_row(begin);
    if (deadline != absl::InfiniteFuture()) {
      request.set_timeout_us(absl::ToInt64Microseconds(deadline - environment_->clock->Now()));
    }
    request.clear_assignments_per_row();
    for (uint32_t row = begin; row < end; ++row) {
      request.add_assignments_per_row(plan.row_begin[row + 1] - plan.row_begin[row]);
    }
    const uint32_t first = plan.row_begin[begin];
    const uint32_t last = plan.row_begin[end];
    request.mutable_expert_ids()->Assign(plan.expert_ids.begin() + first,
                                         plan.expert_ids.begin() + last);
    request.mutable_expert_weights()->Assign(plan.expert_weights.begin() + first,
                                             plan.expert_weights.begin() + last);
    const TensorFrame tensor = HiddenStates(plan, converted, begin, end);
    if (encoding.checksums) {
      request.set_checksum(ChecksumOf(request, tensor));
    }
    frames->push_back(EncodeTensorMessage(request, &tensor, environment_->buffers));
  }
}

}  // namespace expertmesh::batch
