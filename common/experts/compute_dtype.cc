#include "common/experts/compute_dtype.h"

#include "absl/strings/str_cat.h"

namespace expertmesh::experts {

absl::StatusOr<Dtype> ChooseComputeDtype(absl::string_view flag, Dtype checkpoint) {
  if (flag == "auto") {
    return checkpoint == Dtype::kBF16 ? Dtype::kBF16 : Dtype::kF32;
  }
  if (flag == "f32") {
    return Dtype::kF32;
  }
  if (flag == "bf16") {
    return Dtype::kBF16;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--compute-dtype is '", flag, "'; use auto, f32 or bf16"));
}

}  // namespace expertmesh::experts
