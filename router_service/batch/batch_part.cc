#include "router_service/batch/batch_part.h"

namespace expertmesh::batch {

void BatchPart::Recycle() {
  Clear();
  observer = nullptr;
  view.reset();
  lost_by.clear();
  refused_by.clear();
  attempt = 1;
  why_lost = absl::OkStatus();
  contributes = false;
  doubtful_rows.clear();
  second_opinion = false;
}

size_t BatchPart::MemoryBytes() const {
  // The plan of a part that was lost is still here; others gave theirs back.
  return sizeof(*this) + plan.rows.capacity() * 2 * sizeof(uint32_t) +
         plan.expert_ids.capacity() * (sizeof(uint32_t) + sizeof(float)) +
         (nonfinite_rows.capacity() + doubtful_rows.capacity()) * sizeof(uint32_t);
}

}  // namespace expertmesh::batch
