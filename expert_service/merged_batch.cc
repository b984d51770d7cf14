#include "expert_service/merged_batch.h"

#include "common/wire/tensor_copy.h"

namespace expertmesh::node {

void MergedBatch::Merge(absl::Span<const QueuedBatch> batches, Dtype compute_dtype) {
  const MoeLayerDescription& layer = *batches[0].batch->hosted->description;
  const size_t d_model = layer.expert.d_model;
  size_t rows = 0;
  for (const QueuedBatch& queued : batches) {
    rows += queued.batch->total_rows;
  }
  layer_ = layer.layer;
  token_rows_ = 0;
  nonfinite_rows_ = 0;
  assignments_.assign(layer.hostable_experts(), 0);
  hidden_states_.Resize(rows * d_model * BytesOf(compute_dtype));
  hidden_row_of_.clear();
  row_begin_.assign(1, 0);
  experts_.clear();
  weights_.clear();
  grouped_.d_model = d_model;
  for (const QueuedBatch& queued : batches) {
    AddBatch(*queued.batch, compute_dtype);
  }

  grouped_.rows = hidden_row_of_.size();
  auto partials = std::make_shared<AlignedBuffer>(grouped_.rows * d_model * sizeof(float));
  grouped_.hidden_states = hidden_states_.data();
  grouped_.hidden_row_of = hidden_row_of_;
  grouped_.row_begin = row_begin_;
  grouped_.experts = experts_;
  grouped_.weights = weights_;
  grouped_.apply = layer.routing.apply;
  grouped_.partials = partials->as<float>();
  partials_ = std::move(partials);
}

void MergedBatch::AddBatch(const ReceivedBatch& batch, Dtype compute_dtype) {
  const size_t row_bytes = grouped_.d_model * BytesOf(compute_dtype);
  uint8_t* target = hidden_states_.data() + token_rows_ * row_bytes;
  for (const TensorFrame& part : batch.parts) {
    nonfinite_rows_ += CopyRows(part, compute_dtype, target);
    target += part.rows * row_bytes;
  }
  AddRows(batch, token_rows_);
  token_rows_ += batch.total_rows;
  for (const uint32_t expert : batch.expert_ids) {
    experts_.push_back(batch.packed(expert));
    ++assignments_[expert];
  }
  weights_.insert(weights_.end(), batch.weights.begin(), batch.weights.end());
}

void MergedBatch::AddRows(const ReceivedBatch& batch, size_t first_row) {
  const uint32_t offset = row_begin_.back();
  for (uint32_t row = 0; row < batch.total_rows; ++row) {
    const uint32_t end = offset + batch.row_begin[row + 1];
    // Per row: one step to its end. Per assignment: a step for each.
    uint32_t next = batch.per_assignment ? row_begin_.back() + 1 : end;
    for (; next <= end; ++next) {
      hidden_row_of_.push_back(static_cast<uint32_t>(first_row) + row);
      row_begin_.push_back(next);
    }
  }
}

}  // namespace expertmesh::node
