// The type that experts compute in, from a flag and the checkpoint.
#ifndef EXPERTMESH_COMMON_EXPERTS_COMPUTE_DTYPE_H_
#define EXPERTMESH_COMMON_EXPERTS_COMPUTE_DTYPE_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tensor/dtype.h"

namespace expertmesh::experts {

// `flag` is the value of --compute-dtype: f32, bf16, or auto: bf16 for a BF16 checkpoint, else
// f32. INVALID_ARGUMENT otherwise.
absl::StatusOr<Dtype> ChooseComputeDtype(absl::string_view flag, Dtype checkpoint);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_COMPUTE_DTYPE_H_
