#include "client/cpp/reference/reference_expert.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace expertmesh::reference {
namespace {

absl::StatusOr<FloatMatrix> DecodeShaped(const char* name, const MatrixView& view, size_t rows,
                                         size_t cols) {
  ASSIGN_OR_RETURN(FloatMatrix matrix, DecodeReference(view));
  if (matrix.rows != rows || matrix.cols != cols) {
    return absl::InvalidArgumentError(absl::StrCat("an expert's ", name, " is [", matrix.rows, ", ",
                                                   matrix.cols, "]; [", rows, ", ", cols,
                                                   "] is expected"));
  }
  return matrix;
}

float Linear(const FloatMatrix& weight, const FloatMatrix& bias, size_t output, const float* x) {
  const float product = ReferenceDot(weight.row(output), x, weight.cols);
  return bias.empty() ? product : product + bias.values[output];
}

double Activate(Activation activation, double value) {
  return activation == Activation::kRelu ? std::max(value, 0.0) : value * ReferenceSigmoid(value);
}

// What goes into `down`: one value from the gate's and the up projection's.
double Inner(const ExpertOptions& options, double gate, double up) {
  if (options.activation == Activation::kClampedSwiglu) {
    const double limit = options.swiglu_limit;
    const double bounded = std::min(gate, limit);
    const double linear = std::clamp(up, -limit, limit) + 1.0;
    return linear * bounded * ReferenceSigmoid(bounded * options.swiglu_alpha);
  }
  return options.gated ? up * Activate(options.activation, gate) : Activate(options.activation, up);
}

}  // namespace

double ReferenceSigmoid(double value) { return 1.0 / (1.0 + std::exp(-value)); }

ExpertOptions SharedExpertOptions(const MoeLayerDescription& layer) {
  ExpertOptions options;
  options.d_model = layer.expert.d_model;
  options.intermediate_size = layer.shared_intermediate_size;
  return options;
}

absl::StatusOr<FloatExpert> DecodeReferenceExpert(const ExpertOptions& options,
                                                  const ExpertWeights& weights) {
  const size_t width = options.intermediate_size;
  const size_t d_model = options.d_model;
  FloatExpert expert;
  expert.options = options;
  ASSIGN_OR_RETURN(expert.up, DecodeShaped("up", weights.up, width, d_model));
  ASSIGN_OR_RETURN(expert.down, DecodeShaped("down", weights.down, d_model, width));
  if (options.gated) {
    ASSIGN_OR_RETURN(expert.gate, DecodeShaped("gate", weights.gate, width, d_model));
  } else if (options.activation == Activation::kClampedSwiglu) {
    return absl::InvalidArgumentError("a clamped SwiGLU expert must be gated");
  }
  if (options.bias) {
    ASSIGN_OR_RETURN(expert.up_bias, DecodeShaped("up bias", weights.up_bias, 1, width));
    ASSIGN_OR_RETURN(expert.down_bias, DecodeShaped("down bias", weights.down_bias, 1, d_model));
    if (options.gated) {
      ASSIGN_OR_RETURN(expert.gate_bias, DecodeShaped("gate bias", weights.gate_bias, 1, width));
    }
  }
  return expert;
}

void ApplyReferenceExpert(const FloatExpert& expert, const float* x, float* output) {
  std::vector<float> inner(expert.up.rows);
  for (size_t i = 0; i < inner.size(); ++i) {
    const float gate = expert.options.gated ? Linear(expert.gate, expert.gate_bias, i, x) : 0.0f;
    const float up = Linear(expert.up, expert.up_bias, i, x);
    inner[i] = static_cast<float>(Inner(expert.options, gate, up));
  }
  for (size_t i = 0; i < expert.down.rows; ++i) {
    output[i] = Linear(expert.down, expert.down_bias, i, inner.data());
  }
}

}  // namespace expertmesh::reference
