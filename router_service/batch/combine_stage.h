// Fifth stage: the weighted sum of what nodes and shared experts contributed, in a fixed order.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_COMBINE_STAGE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_COMBINE_STAGE_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "router_service/batch/batch.h"
#include "router_service/batch/batch_part.h"
#include "router_service/batch/partials_layout.h"

namespace expertmesh::batch {

// Working memory of a pooled run.
class CombineStage {
 public:
  // Orders what those of `parts` contribute that count. `shared`: [rows, d_model] float32, or null.
  // All must outlive the sums.
  void Collect(const Batch& batch, absl::Span<const std::shared_ptr<BatchPart>> parts,
               const float* shared);

  // The output of these rows, [range.count, d_model] float32. Thread-safe after Collect.
  void Sum(RowRange range, float* output) const;

  // Parts that count, in the order in which they are summed.
  absl::Span<BatchPart* const> contributing() const { return contributing_; }

  // Forgets the batch; keeps memory.
  void Clear();
  size_t MemoryBytes() const;

 private:
  const Batch* batch_ = nullptr;
  const float* shared_ = nullptr;
  std::vector<BatchPart*> contributing_;
  std::vector<Contribution> contributions_;
  std::unique_ptr<PartialsSum> sum_;
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_COMBINE_STAGE_H_
