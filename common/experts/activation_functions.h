// What lies between an expert's products, of one element; the same source for the CPU and for GPUs,
// and the same bits where products and sums are not contracted.
#ifndef EXPERTMESH_COMMON_EXPERTS_ACTIVATION_FUNCTIONS_H_
#define EXPERTMESH_COMMON_EXPERTS_ACTIVATION_FUNCTIONS_H_

#include "common/base/fast_exp.h"
#include "common/base/host_device.h"

namespace expertmesh::experts {

// Activations: of a gate and an up value, or of one value alone. NaN stays NaN in all of them.
struct Silu {
  EXPERTMESH_HOST_DEVICE_INLINE float operator()(float x) const { return x / (1.0f + FastExp(-x)); }
  EXPERTMESH_HOST_DEVICE_INLINE float operator()(float gate, float up) const {
    return (*this)(gate)*up;
  }
};
struct Relu {
  EXPERTMESH_HOST_DEVICE_INLINE float operator()(float x) const { return x < 0.0f ? 0.0f : x; }
  EXPERTMESH_HOST_DEVICE_INLINE float operator()(float gate, float up) const {
    return (*this)(gate)*up;
  }
};
struct ClampedSwiglu {
  float limit;
  float alpha;
  EXPERTMESH_HOST_DEVICE_INLINE float operator()(float gate, float up) const {
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : up;
    up = up < -limit ? -limit : up;
    return gate / (1.0f + FastExp(-(alpha * gate))) * (up + 1.0f);
  }
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_ACTIVATION_FUNCTIONS_H_
