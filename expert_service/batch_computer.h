// Computes several batches of one layer as one.
#ifndef EXPERTMESH_EXPERT_SERVICE_BATCH_COMPUTER_H_
#define EXPERTMESH_EXPERT_SERVICE_BATCH_COMPUTER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/experts/backend.h"
#include "common/tensor/aligned_buffer.h"
#include "expert_service/batch.h"

namespace expertmesh::node {

// Keeps its working memory between calls. Not thread-safe.
class BatchComputer {
 public:
  // `backend` must outlive it.
  explicit BatchComputer(experts::Backend* backend) : backend_(backend) {}

  struct Result {
    // [answer rows of all batches, d_model] floats, batch after batch.
    std::shared_ptr<const AlignedBuffer> partials;
    size_t rows = 0;
    size_t d_model = 0;
    // Rows with NaN or Inf among their hidden states.
    size_t nonfinite_rows = 0;
    // [num_experts] Assignments computed.
    std::vector<uint64_t> assignments;
  };

  // `batches` are of one layer and not empty. Errors are the backend's.
  absl::StatusOr<Result> Compute(absl::Span<const std::unique_ptr<Batch>> batches);

 private:
  // Copies rows and assignments of one batch behind those already there.
  void Gather(const Batch& batch, size_t first_row, Result* result);
  // Its rows of partials, behind those already there.
  void GatherRows(const Batch& batch, size_t first_row);

  experts::Backend* const backend_;
  AlignedBuffer hidden_states_;
  // Of the rows of partials.
  std::vector<uint32_t> hidden_row_of_;
  std::vector<uint32_t> row_begin_;
  std::vector<const experts::PackedExpert*> experts_;
  std::vector<float> weights_;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_BATCH_COMPUTER_H_
