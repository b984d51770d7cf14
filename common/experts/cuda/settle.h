// After an error: nothing is under way any more. Private to the room.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_SETTLE_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_SETTLE_H_

#include "absl/status/status.h"
#include "common/cuda/stream.h"

namespace expertmesh::experts {

// Waits for the work of `stream`, after `error` of some call that used it. Returns `error`, or that
// the device is lost: also when it does not say whether the work has ended.
absl::Status Settle(const cuda::Stream& stream, absl::Status error);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_SETTLE_H_
