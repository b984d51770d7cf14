#include "common/experts/cuda/settle.h"

#include "absl/strings/str_cat.h"
#include "common/cuda/cuda_status.h"

namespace expertmesh::experts {

absl::Status Settle(const cuda::Stream& stream, absl::Status error) {
  if (cuda::IsDeviceLost(error)) {
    return error;
  }
  // Twice: the first may report the error of the work itself, or fail for a reason of its own.
  absl::Status waited = stream.Synchronize();
  if (!waited.ok() && !cuda::IsDeviceLost(waited)) {
    waited = stream.Synchronize();
  }
  if (waited.ok()) {
    return error;
  }
  return cuda::IsDeviceLost(waited)
             ? waited
             : cuda::DeviceLost(absl::StrCat(error.message(), "; then ", waited.message()));
}

}  // namespace expertmesh::experts
