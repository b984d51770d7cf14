#include "expert_service/batch_computer.h"

#include <utility>

#include "common/base/status_macros.h"
#include "common/wire/tensor_copy.h"

namespace expertmesh::node {

void BatchComputer::GatherRows(const Batch& batch, size_t first_row) {
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

void BatchComputer::Gather(const Batch& batch, size_t first_row, Result* result) {
  const DType dtype = backend_->compute_dtype();
  const size_t row_bytes = result->d_model * BytesOf(dtype);
  uint8_t* target = hidden_states_.data() + first_row * row_bytes;
  for (const TensorFrame& part : batch.parts) {
    result->nonfinite_rows += CopyRows(part, dtype, target);
    target += part.rows * row_bytes;
  }
  GatherRows(batch, first_row);
  for (const uint32_t expert : batch.expert_ids) {
    experts_.push_back(batch.hosted->experts[expert]->packed());
    ++result->assignments[expert];
  }
  weights_.insert(weights_.end(), batch.weights.begin(), batch.weights.end());
}

absl::StatusOr<BatchComputer::Result> BatchComputer::Compute(
    absl::Span<const std::unique_ptr<Batch>> batches) {
  const MoeLayerDescription& layer = *batches[0]->hosted->description;
  const size_t d_model = layer.expert.d_model;
  size_t rows = 0;
  for (const std::unique_ptr<Batch>& batch : batches) {
    rows += batch->total_rows;
  }
  Result result;
  result.d_model = d_model;
  result.assignments.assign(layer.routing.num_experts, 0);
  hidden_states_.Resize(rows * d_model * BytesOf(backend_->compute_dtype()));
  hidden_row_of_.clear();
  row_begin_.assign(1, 0);
  experts_.clear();
  weights_.clear();
  size_t first_row = 0;
  for (const std::unique_ptr<Batch>& batch : batches) {
    Gather(*batch, first_row, &result);
    first_row += batch->total_rows;
  }

  result.rows = hidden_row_of_.size();
  auto partials = std::make_shared<AlignedBuffer>(result.rows * d_model * sizeof(float));
  experts::GroupedBatch grouped;
  grouped.hidden_states = hidden_states_.data();
  grouped.rows = result.rows;
  grouped.d_model = d_model;
  grouped.hidden_row_of = hidden_row_of_;
  grouped.row_begin = row_begin_;
  grouped.experts = experts_;
  grouped.weights = weights_;
  grouped.apply = layer.routing.apply;
  grouped.partials = partials->as<float>();
  RETURN_IF_ERROR(backend_->Compute(grouped));
  result.partials = std::move(partials);
  return result;
}

}  // namespace expertmesh::node
