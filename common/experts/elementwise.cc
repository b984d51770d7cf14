#include "common/experts/elementwise.h"

#include "common/base/cpu_features.h"
#include "common/experts/activation_functions.h"
#include "common/tensor/dtype.h"

// Compiled with -ffp-contract=off (see CMakeLists.txt). One body for all instruction sets: each
// variant inlines it into a function of its own target.
#define EXPERTMESH_INLINE inline __attribute__((always_inline))

namespace expertmesh::experts {
namespace {

EXPERTMESH_INLINE void Store(float value, float* out) { *out = value; }
EXPERTMESH_INLINE void Store(float value, uint16_t* out) { *out = BF16FromFloat(value); }
EXPERTMESH_INLINE float Load(const float* in) { return *in; }
EXPERTMESH_INLINE float Load(const uint16_t* in) { return FloatFromBF16(*in); }

template <bool kBias>
EXPERTMESH_INLINE float LoadSum(const float* z, const float* bias, size_t i) {
  return kBias ? z[i] + bias[i] : z[i];
}

template <bool kBias, typename Function, typename T>
EXPERTMESH_INLINE void Gated(Function function, const float* __restrict z,
                             const float* __restrict bias, size_t blocks, T* __restrict out) {
  for (size_t b = 0; b < blocks; ++b) {
    for (size_t j = 0; j < kInterleave; ++j) {
      const size_t gate = 2 * kInterleave * b + j;
      Store(function(LoadSum<kBias>(z, bias, gate), LoadSum<kBias>(z, bias, gate + kInterleave)),
            out + kInterleave * b + j);
    }
  }
}

template <bool kBias, typename Function, typename T>
EXPERTMESH_INLINE void Plain(Function function, const float* __restrict z,
                             const float* __restrict bias, size_t blocks, T* __restrict out) {
  for (size_t i = 0; i < kInterleave * blocks; ++i) {
    Store(function(LoadSum<kBias>(z, bias, i)), out + i);
  }
}

template <bool kBias, typename T>
EXPERTMESH_INLINE void Activate(const ActivationOptions& options, const float* z, const float* bias,
                                size_t blocks, T* out) {
  if (options.activation == Activation::kClampedSwiglu) {
    Gated<kBias>(ClampedSwiglu{options.swiglu_limit, options.swiglu_alpha}, z, bias, blocks, out);
  } else if (options.activation == Activation::kSilu) {
    options.gated ? Gated<kBias>(Silu(), z, bias, blocks, out)
                  : Plain<kBias>(Silu(), z, bias, blocks, out);
  } else {
    options.gated ? Gated<kBias>(Relu(), z, bias, blocks, out)
                  : Plain<kBias>(Relu(), z, bias, blocks, out);
  }
}

template <typename T>
EXPERTMESH_INLINE void ActivateBody(const ActivationOptions& options, const float* z,
                                    const float* bias, size_t blocks, T* out) {
  bias == nullptr ? Activate<false>(options, z, bias, blocks, out)
                  : Activate<true>(options, z, bias, blocks, out);
}

template <typename T>
EXPERTMESH_INLINE void ScaleBody(float weight, const T* __restrict in, size_t count,
                                 T* __restrict out) {
  for (size_t i = 0; i < count; ++i) {
    Store(weight * Load(in + i), out + i);
  }
}

EXPERTMESH_INLINE void AccumulateBody(float weight, const float* __restrict in, size_t count,
                                      float* __restrict sum) {
  for (size_t i = 0; i < count; ++i) {
    sum[i] = sum[i] + weight * in[i];
  }
}

EXPERTMESH_INLINE void AccumulateBiasedBody(float weight, const float* __restrict in,
                                            const float* __restrict bias, size_t count,
                                            float* __restrict sum) {
  for (size_t i = 0; i < count; ++i) {
    sum[i] = sum[i] + weight * (in[i] + bias[i]);
  }
}

#define EXPERTMESH_VARIANT(name, target)                                                          \
  struct name {                                                                                   \
    target static void ActivateF32(const ActivationOptions& options, const float* z,              \
                                   const float* bias, size_t blocks, float* out) {                \
      ActivateBody(options, z, bias, blocks, out);                                                \
    }                                                                                             \
    target static void ActivateBF16(const ActivationOptions& options, const float* z,             \
                                    const float* bias, size_t blocks, uint16_t* out) {            \
      ActivateBody(options, z, bias, blocks, out);                                                \
    }                                                                                             \
    target static void ScaleF32(float weight, const float* in, size_t count, float* out) {        \
      ScaleBody(weight, in, count, out);                                                          \
    }                                                                                             \
    target static void ScaleBF16(float weight, const uint16_t* in, size_t count, uint16_t* out) { \
      ScaleBody(weight, in, count, out);                                                          \
    }                                                                                             \
    target static void Accumulate(float weight, const float* in, size_t count, float* sum) {      \
      AccumulateBody(weight, in, count, sum);                                                     \
    }                                                                                             \
    target static void AccumulateBiased(float weight, const float* in, const float* bias,         \
                                        size_t count, float* sum) {                               \
      AccumulateBiasedBody(weight, in, bias, count, sum);                                         \
    }                                                                                             \
    static constexpr ElementwiseOps kOps = {ActivateF32, ActivateBF16, ScaleF32,                  \
                                            ScaleBF16,   Accumulate,   AccumulateBiased};         \
  }

EXPERTMESH_VARIANT(Generic, );
#if defined(__x86_64__)
EXPERTMESH_VARIANT(Avx2, __attribute__((target("avx2"))));
EXPERTMESH_VARIANT(Avx512, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))));
#endif

}  // namespace

std::vector<const ElementwiseOps*> AllElementwiseOps() {
  std::vector<const ElementwiseOps*> all = {&Generic::kOps};
#if defined(__x86_64__)
  if (CpuHasAvx2()) {
    all.push_back(&Avx2::kOps);
  }
  if (CpuHasAvx512()) {
    all.push_back(&Avx512::kOps);
  }
#endif
  return all;
}

const ElementwiseOps& GetElementwiseOps() {
  static const ElementwiseOps& ops = *AllElementwiseOps().back();
  return ops;
}

}  // namespace expertmesh::experts
