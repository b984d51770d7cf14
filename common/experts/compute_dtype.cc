#include "common/experts/compute_dtype.h"

#include "absl/strings/str_cat.h"

namespace expertmesh::experts {

absl::StatusOr<DType> ChooseComputeDType(absl::string_view flag, DType checkpoint) {
  if (flag == "auto") {
    return checkpoint == DType::kBF16 ? DType::kBF16 : DType::kF32;
  }
  if (flag == "f32") {
    return DType::kF32;
  }
  if (flag == "bf16") {
    return DType::kBF16;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--compute-dtype is '", flag, "'; use auto, f32 or bf16"));
}

}  // namespace expertmesh::experts
