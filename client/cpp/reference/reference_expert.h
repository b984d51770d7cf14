// One expert on one token: every activation, gated or plain, with biases or without.
#ifndef EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_EXPERT_H_
#define EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_EXPERT_H_

#include "absl/status/statusor.h"
#include "client/cpp/reference/reference_matrix.h"
#include "common/model/expert_weights.h"
#include "common/model/model_description.h"

namespace expertmesh::reference {

// An expert's weights as float32; what it does not have is empty.
struct FloatExpert {
  ExpertOptions options;
  FloatMatrix gate;
  FloatMatrix up;
  FloatMatrix down;
  FloatMatrix gate_bias;
  FloatMatrix up_bias;
  FloatMatrix down_bias;
};

// INVALID_ARGUMENT when the weights have not the shapes that `options` say.
absl::StatusOr<FloatExpert> DecodeReferenceExpert(const ExpertOptions& options,
                                                  const ExpertWeights& weights);

// The shared experts of a layer taken as one.
ExpertOptions SharedExpertOptions(const MoeLayerDescription& layer);

// output = down * act(gate * x, up * x), [d_model] each; `output` is overwritten.
void ApplyReferenceExpert(const FloatExpert& expert, const float* x, float* output);

double ReferenceSigmoid(double value);

}  // namespace expertmesh::reference

#endif  // EXPERTMESH_CLIENT_CPP_REFERENCE_REFERENCE_EXPERT_H_
