// The loops between the matrix products of an expert, for the widest vectors this machine has. The
// same bits on every machine and for every vector width: element by element, without contraction.
#ifndef EXPERTMESH_COMMON_EXPERTS_ELEMENTWISE_H_
#define EXPERTMESH_COMMON_EXPERTS_ELEMENTWISE_H_

#include <cstddef>
#include <cstdint>

namespace expertmesh {

// Gate and up columns lie in turns of this many: 32 of gate, 32 of up, 32 of gate ...
inline constexpr size_t kInterleave = 32;

struct ElementwiseOps {
  // out[32 b + j] = silu(z[64 b + j]) * z[64 b + 32 + j] for b < blocks, j < 32; in float32,
  // rounded once to the type of `out`. Relative error of silu: about 3e-7.
  void (*silu_mul_f32)(const float* z, size_t blocks, float* out);
  void (*silu_mul_bf16)(const float* z, size_t blocks, uint16_t* out);
  // out[i] = weight * in[i], rounded to the type of `out`.
  void (*scale_f32)(float weight, const float* in, size_t count, float* out);
  void (*scale_bf16)(float weight, const uint16_t* in, size_t count, uint16_t* out);
  // sum[i] += weight * in[i].
  void (*accumulate)(float weight, const float* in, size_t count, float* sum);
};

// Never changes while the process runs.
const ElementwiseOps& GetElementwiseOps();

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_EXPERTS_ELEMENTWISE_H_
