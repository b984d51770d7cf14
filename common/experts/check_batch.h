// What every backend asks of a batch before it looks at its experts.
#ifndef EXPERTMESH_COMMON_EXPERTS_CHECK_BATCH_H_
#define EXPERTMESH_COMMON_EXPERTS_CHECK_BATCH_H_

#include "absl/status/status.h"
#include "common/experts/backend.h"

namespace expertmesh::experts {

// INVALID_ARGUMENT names the member of `batch` that does not fit the others. Thread-safe.
absl::Status CheckBatch(const GroupedBatch& batch);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CHECK_BATCH_H_
