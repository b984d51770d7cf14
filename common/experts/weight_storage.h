// How packed experts keep their weights, from a flag.
#ifndef EXPERTMESH_COMMON_EXPERTS_WEIGHT_STORAGE_H_
#define EXPERTMESH_COMMON_EXPERTS_WEIGHT_STORAGE_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace expertmesh::experts {

// kExpanded: in the compute type, ready to multiply. kCompressed: as the checkpoint has them (a
// copy of its values and scales); a batch expands each expert that it uses, panel by panel, into
// scratch memory of at most one expert per thread. The results are the same, bit for bit.
enum class WeightStorage { kExpanded, kCompressed };

// `flag` is the value of --weights: expanded or compressed. INVALID_ARGUMENT otherwise.
absl::StatusOr<WeightStorage> ParseWeightStorage(absl::string_view flag);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_WEIGHT_STORAGE_H_
