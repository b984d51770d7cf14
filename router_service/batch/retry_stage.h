// What becomes of a part that came back: it counts, another node is asked, or its requests fail.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_RETRY_STAGE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_RETRY_STAGE_H_

#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "router_service/batch/batch.h"
#include "router_service/batch/batch_part.h"

namespace expertmesh::batch {

// Decides about `part`, which ended with `status`. True when its assignments are to be planned and
// dispatched again; else it contributes, or the requests of its rows have failed. By any thread,
// once for each part.
bool AsksAgain(const Batch& batch, const absl::Status& status, BatchPart* part);

// Counts each of `parts`, all of a batch, that was in doubt by whether others said the same: other
// nodes, or this router, of which `is_finite_here` tells rows that it computed in place of a node
// and that are finite.
void JudgeDoubtful(const Batch& batch, absl::Span<const std::shared_ptr<BatchPart>> parts,
                   absl::FunctionRef<bool(uint32_t row)> is_finite_here);

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_RETRY_STAGE_H_
