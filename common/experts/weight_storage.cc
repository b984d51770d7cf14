#include "common/experts/weight_storage.h"

#include "absl/strings/str_cat.h"

namespace expertmesh::experts {

absl::StatusOr<WeightStorage> ParseWeightStorage(absl::string_view flag) {
  if (flag == "expanded") {
    return WeightStorage::kExpanded;
  }
  if (flag == "compressed") {
    return WeightStorage::kCompressed;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--weights is '", flag, "'; use expanded or compressed"));
}

}  // namespace expertmesh::experts
