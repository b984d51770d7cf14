// From the scores of a token's chosen experts to the weights that are used: the last steps of
// routing.
#ifndef EXPERTMESH_COMMON_GATE_WEIGHTS_H_
#define EXPERTMESH_COMMON_GATE_WEIGHTS_H_

#include "absl/types/span.h"
#include "common/model/routing_options.h"
#include "common/tensor/dtype.h"

namespace expertmesh::gate {

// Divides one token's weights by what Renormalise says, in place.
void RenormaliseWeights(const RoutingOptions& options, Dtype activation_dtype,
                        absl::Span<float> weights);

// Scales one token's weights and rounds them to `activation_dtype` where WeightDtype says so, in
// place.
void ScaleWeights(const RoutingOptions& options, Dtype activation_dtype, absl::Span<float> weights);

// Rounds each value to an activation type, in place.
void RoundTo(Dtype dtype, absl::Span<float> values);

inline float Rounded(Dtype dtype, float value) {
  switch (dtype) {
    case Dtype::kBF16:
      return FloatFromBF16(BF16FromFloat(value));
    case Dtype::kF16:
      return FloatFromF16(F16FromFloat(value));
    default:
      return value;
  }
}

}  // namespace expertmesh::gate

#endif  // EXPERTMESH_COMMON_GATE_WEIGHTS_H_
