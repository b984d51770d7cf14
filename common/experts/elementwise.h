// The loops between the matrix products of an expert, for the widest vectors this machine has. The
// same bits on every machine and for every vector width: element by element, without contraction.
#ifndef EXPERTMESH_COMMON_EXPERTS_ELEMENTWISE_H_
#define EXPERTMESH_COMMON_EXPERTS_ELEMENTWISE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/model/model_description.h"

namespace expertmesh::experts {

// Gate and up columns lie in turns of this many: 32 of gate, 32 of up, 32 of gate ...
inline constexpr size_t kInterleave = 32;

// What lies between an expert's products; fields as in ExpertOptions.
struct ActivationOptions {
  Activation activation = Activation::kSilu;
  bool gated = true;
  float swiglu_limit = 0.0f;
  float swiglu_alpha = 0.0f;
};

struct ElementwiseOps {
  // For b < blocks, j < 32, in float32, rounded once to the type of `out`:
  // - gated: out[32 b + j] = f(g, u), where g is z + bias at 64 b + j, and u at 64 b + 32 + j;
  // - plain: out[32 b + j] = f(u), where u is z + bias at 32 b + j.
  //
  // f is that of Activation; kClampedSwiglu is gated. Without biases `bias` is null. Relative error
  // of the sigmoid: about 3e-7.
  void (*activate_f32)(const ActivationOptions& options, const float* z, const float* bias,
                       size_t blocks, float* out);
  void (*activate_bf16)(const ActivationOptions& options, const float* z, const float* bias,
                        size_t blocks, uint16_t* out);
  // out[i] = weight * in[i], rounded to the type of `out`.
  void (*scale_f32)(float weight, const float* in, size_t count, float* out);
  void (*scale_bf16)(float weight, const uint16_t* in, size_t count, uint16_t* out);
  // sum[i] += weight * in[i], or weight * (in[i] + bias[i]).
  void (*accumulate)(float weight, const float* in, size_t count, float* sum);
  void (*accumulate_biased)(float weight, const float* in, const float* bias, size_t count,
                            float* sum);
};

// Never changes while the process runs.
const ElementwiseOps& GetElementwiseOps();

// All that this machine can run, the widest last.
std::vector<const ElementwiseOps*> AllElementwiseOps();

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_ELEMENTWISE_H_
