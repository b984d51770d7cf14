// What every backend asks of an expert before it packs it.
#ifndef EXPERTMESH_COMMON_EXPERTS_CHECK_EXPERT_H_
#define EXPERTMESH_COMMON_EXPERTS_CHECK_EXPERT_H_

#include "absl/status/status.h"
#include "common/model/expert_weights.h"
#include "common/model/model_description.h"

namespace expertmesh::experts {

// Checks everything but values. INVALID_ARGUMENT names the matrix or option. Thread-safe.
absl::Status CheckExpert(const ExpertOptions& options, const ExpertWeights& weights,
                         IntermediateSlice slice);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CHECK_EXPERT_H_
