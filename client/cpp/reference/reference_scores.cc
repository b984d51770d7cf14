#include "client/cpp/reference/reference_scores.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace expertmesh::reference {
namespace {

void Softmax(std::vector<float>* values) {
  if (values->empty()) {
    return;
  }
  const float largest = *std::max_element(values->begin(), values->end());
  double sum = 0.0;
  for (const float value : *values) {
    sum += std::exp(static_cast<double>(value) - largest);
  }
  for (float& value : *values) {
    value = static_cast<float>(std::exp(static_cast<double>(value) - largest) / sum);
  }
}

// What 1 is followed by, less 1: 7, 10 and 23 bits of mantissa.
double MachineEpsilon(Dtype dtype) {
  return std::ldexp(1.0, dtype == Dtype::kBF16 ? -7 : dtype == Dtype::kF16 ? -10 : -23);
}

}  // namespace

float RoundReference(Dtype dtype, float value) {
  switch (dtype) {
    case Dtype::kBF16:
      return FloatFromBF16(BF16FromFloat(value));
    case Dtype::kF16:
      return FloatFromF16(F16FromFloat(value));
    default:
      return value;
  }
}

std::vector<float> ReferenceScores(ScoreFunction function, std::vector<float> logits) {
  switch (function) {
    case ScoreFunction::kIdentity:
      break;
    case ScoreFunction::kSoftmax:
      Softmax(&logits);
      break;
    case ScoreFunction::kSigmoid:
      for (float& value : logits) {
        value = static_cast<float>(1.0 / (1.0 + std::exp(-static_cast<double>(value))));
      }
      break;
    case ScoreFunction::kSqrtSoftplus:
      for (float& value : logits) {
        // ln(1 + e^z) is z for a large z, whose e^z is no number.
        const double z = value;
        value = static_cast<float>(std::sqrt(z > 40.0 ? z : std::log1p(std::exp(z))));
      }
      break;
  }
  return logits;
}

double RenormaliseDivisor(const RoutingOptions& routing, Dtype activation_dtype,
                          const std::vector<float>& weights) {
  double sum = 0.0;
  for (const float weight : weights) {
    sum += weight;
  }
  switch (routing.renormalise) {
    case Renormalise::kNone:
      return 1.0;
    case Renormalise::kSum:
      return sum + routing.renormalise_epsilon;
    case Renormalise::kClampedSum:
      return std::max(sum, static_cast<double>(routing.renormalise_epsilon));
    case Renormalise::kDtypeClampedSum:
      return std::max(sum, MachineEpsilon(activation_dtype));
    case Renormalise::kLp: {
      double powers = 0.0;
      for (const float weight : weights) {
        powers += std::pow(std::fabs(static_cast<double>(weight)), routing.renormalise_p);
      }
      return std::pow(powers, 1.0 / routing.renormalise_p);
    }
  }
  return 1.0;
}

}  // namespace expertmesh::reference
