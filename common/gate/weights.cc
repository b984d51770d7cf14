#include "common/gate/weights.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"

namespace expertmesh::gate {
namespace {

// The step from 1 to the next larger number.
float EpsilonOf(Dtype dtype) {
  return dtype == Dtype::kBF16 ? 0x1p-7f : dtype == Dtype::kF16 ? 0x1p-10f : 0x1p-23f;
}

float Divisor(const RoutingOptions& options, Dtype activation_dtype,
              absl::Span<const float> weights) {
  float sum = 0.0f;
  if (options.renormalise == Renormalise::kLp) {
    const float p = options.renormalise_p;
    for (const float weight : weights) {
      sum += p == 1.0f ? std::fabs(weight) : std::pow(std::fabs(weight), p);
    }
    return p == 1.0f ? sum : std::pow(sum, 1.0f / p);
  }
  for (const float weight : weights) {
    sum += weight;
  }
  switch (options.renormalise) {
    case Renormalise::kDtypeClampedSum:
      return std::max(sum, EpsilonOf(activation_dtype));
    case Renormalise::kClampedSum:
      return std::max(sum, options.renormalise_epsilon);
    default:
      return sum + options.renormalise_epsilon;
  }
}

}  // namespace

void RenormaliseWeights(const RoutingOptions& options, Dtype activation_dtype,
                        absl::Span<float> weights) {
  if (options.renormalise == Renormalise::kNone) {
    return;
  }
  const float divisor = Divisor(options, activation_dtype, weights);
  for (float& weight : weights) {
    weight /= divisor;
  }
}

void ScaleWeights(const RoutingOptions& options, Dtype activation_dtype,
                  absl::Span<float> weights) {
  if (options.scale != 1.0f) {
    for (float& weight : weights) {
      weight *= options.scale;
    }
  }
  if (options.weight_dtype == WeightDtype::kModel) {
    RoundTo(activation_dtype, weights);
  }
}

void RoundTo(Dtype dtype, absl::Span<float> values) {
  switch (dtype) {
    case Dtype::kBF16:
      for (float& value : values) {
        value = FloatFromBF16(BF16FromFloat(value));
      }
      return;
    case Dtype::kF16:
      for (float& value : values) {
        value = FloatFromF16(F16FromFloat(value));
      }
      return;
    default:
      EXPERTMESH_CHECK(dtype == Dtype::kF32);
  }
}

}  // namespace expertmesh::gate
