// Several received batches of one layer, put together into the one that the backend computes.
#ifndef EXPERTMESH_EXPERT_SERVICE_MERGED_BATCH_H_
#define EXPERTMESH_EXPERT_SERVICE_MERGED_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "common/experts/backend.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/dtype.h"
#include "expert_service/batch_queue.h"

namespace expertmesh::node {

// Keeps its working memory from one merge to the next. Not thread-safe.
class MergedBatch {
 public:
  // Copies hidden states (as `compute_dtype`) and assignments of `batches`, which are of one layer
  // and not empty. Their experts must stay held until the batch is computed.
  void Merge(absl::Span<const QueuedBatch> batches, Dtype compute_dtype);

  // For the backend; valid, and its memory kept, until the next Merge().
  const experts::GroupedBatch& grouped() const { return grouped_; }

  // [answer rows of all batches, d_model] floats, batch after batch; the backend writes them.
  const std::shared_ptr<const AlignedBuffer>& partials() const { return partials_; }
  size_t d_model() const { return grouped_.d_model; }
  uint32_t layer() const { return layer_; }
  // Token rows, which `grouped` has at least.
  size_t token_rows() const { return token_rows_; }
  // Rows with NaN or Inf among their hidden states.
  size_t nonfinite_rows() const { return nonfinite_rows_; }
  // [hostable_experts()] How many assignments each expert has.
  absl::Span<const uint64_t> assignments() const { return assignments_; }

  // Only those who still send the partials keep them from here on.
  void ReleasePartials() { partials_.reset(); }

 private:
  // Copies rows and assignments of one batch behind those already there.
  void AddBatch(const ReceivedBatch& batch, Dtype compute_dtype);
  // Its rows of partials, behind those already there.
  void AddRows(const ReceivedBatch& batch, size_t first_row);

  uint32_t layer_ = 0;
  size_t token_rows_ = 0;
  size_t nonfinite_rows_ = 0;
  std::vector<uint64_t> assignments_;
  AlignedBuffer hidden_states_;
  std::vector<uint32_t> hidden_row_of_;  // [rows of partials] The row of hidden_states_ they read.
  std::vector<uint32_t> row_begin_;
  std::vector<const experts::PackedExpert*> experts_;
  std::vector<float> weights_;
  std::shared_ptr<const AlignedBuffer> partials_;
  experts::GroupedBatch grouped_;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_MERGED_BATCH_H_
