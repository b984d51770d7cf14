#include "common/experts/check_expert.h"

#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"
#include "common/tensor/decode_matrix.h"

namespace expertmesh::experts {
namespace {

absl::Status CheckShape(absl::string_view name, const MatrixView& view, size_t rows, size_t cols) {
  if (view.rows != rows || view.cols != cols) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert weight '", name, "' is [", view.rows, ", ", view.cols,
                     "] but d_model and intermediate_size call for [", rows, ", ", cols, "]"));
  }
  return CheckDecodable(absl::StrCat("expert weight '", name, "'"), view);
}

// A weight that options say is there or not.
absl::Status CheckOptional(absl::string_view name, const MatrixView& view, bool wanted, size_t rows,
                           size_t cols) {
  if (wanted) {
    return CheckShape(name, view, rows, cols);
  }
  if (!view.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert weight '", name, "' is given, but the expert's options have none"));
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const ExpertOptions& options) {
  if (options.d_model == 0 || options.intermediate_size == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("d_model (", options.d_model, ") and intermediate_size (",
                     options.intermediate_size, ") must be positive"));
  }
  if (options.activation != Activation::kClampedSwiglu) {
    return absl::OkStatus();
  }
  if (!options.gated) {
    return absl::InvalidArgumentError("the activation clamped SwiGLU needs a gated expert");
  }
  if (!(options.swiglu_limit > 0.0f) || !std::isfinite(options.swiglu_alpha)) {
    return absl::InvalidArgumentError(absl::StrCat("swiglu_limit (", options.swiglu_limit,
                                                   ") must be positive and swiglu_alpha (",
                                                   options.swiglu_alpha, ") finite"));
  }
  return absl::OkStatus();
}

absl::Status CheckSlice(const ExpertOptions& options, const ExpertWeights& weights,
                        IntermediateSlice slice) {
  if (slice.count == 0 || slice.index >= slice.count) {
    return absl::InvalidArgumentError(absl::StrCat("slice ", slice.index, " of ", slice.count,
                                                   " does not exist; slices count from 0"));
  }
  const size_t intermediate = options.intermediate_size;
  if (intermediate % slice.count != 0) {
    return absl::InvalidArgumentError(absl::StrCat("intermediate_size ", intermediate,
                                                   " does not divide into ", slice.count,
                                                   " slices; choose a divisor"));
  }
  if (weights.down.dtype == Dtype::kF4 && slice.index * (intermediate / slice.count) % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("slices of width ", intermediate / slice.count,
                     " would cut bytes of the F4 expert weight 'down'; choose fewer slices"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckExpert(const ExpertOptions& options, const ExpertWeights& weights,
                         IntermediateSlice slice) {
  RETURN_IF_ERROR(CheckOptions(options));
  const size_t d_model = options.d_model;
  const size_t intermediate = options.intermediate_size;
  RETURN_IF_ERROR(CheckOptional("gate", weights.gate, options.gated, intermediate, d_model));
  RETURN_IF_ERROR(CheckShape("up", weights.up, intermediate, d_model));
  RETURN_IF_ERROR(CheckShape("down", weights.down, d_model, intermediate));
  RETURN_IF_ERROR(CheckOptional("gate_bias", weights.gate_bias, options.bias && options.gated, 1,
                                intermediate));
  RETURN_IF_ERROR(CheckOptional("up_bias", weights.up_bias, options.bias, 1, intermediate));
  RETURN_IF_ERROR(CheckOptional("down_bias", weights.down_bias, options.bias, 1, d_model));
  return CheckSlice(options, weights, slice);
}

}  // namespace expertmesh::experts
