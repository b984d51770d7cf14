// The steps of reference routing that look at one number, or one row of numbers, at a time.
#ifndef EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_SCORES_H_
#define EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_SCORES_H_

#include <vector>

#include "common/model/routing_options.h"
#include "common/tensor/dtype.h"

namespace expertmesh::reference {

// `value` as a number of `dtype`, an activation type.
float RoundReference(Dtype dtype, float value);

// The score function over a row of logits.
std::vector<float> ReferenceScores(ScoreFunction function, std::vector<float> logits);

// What weights of one token are divided by.
double RenormaliseDivisor(const RoutingOptions& routing, Dtype activation_dtype,
                          const std::vector<float>& weights);

}  // namespace expertmesh::reference

#endif  // EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_SCORES_H_
