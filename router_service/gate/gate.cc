#include "router_service/gate/gate.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"

namespace expertmesh {
namespace {

// Rows widened to float32 at a time: the copy stays in the cache.
constexpr size_t kRowsPerBlock = GateMatmul::kMaxBlock;

absl::Status CheckActivation(absl::string_view what, DType dtype) {
  if (IsActivationDType(dtype)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(what, " has type ", std::string(NameOf(dtype)),
                                                 "; it must be F32, BF16 or F16"));
}

absl::Status CheckSize(absl::string_view what, size_t size, size_t wanted) {
  if (size == wanted) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(what, " has room for ", size, " values; it must be exactly ", wanted));
}

absl::Status CheckWeights(const GateWeights& weights, const RoutingOptions& options) {
  const MatrixView& weight = weights.weight;
  if (weight.rows != options.num_experts || weight.cols == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the gate's weight is [", weight.rows, ", ", weight.cols,
                     "]; it must be [num_experts = ", options.num_experts, ", d_model]"));
  }
  RETURN_IF_ERROR(CheckActivation("the gate's weight", weight.dtype));
  const MatrixView& bias = weights.select_bias;
  if (!options.select_bias) {
    return absl::OkStatus();
  }
  if (bias.rows != 1 || bias.cols != options.num_experts) {
    return absl::InvalidArgumentError(
        absl::StrCat("the gate's selection bias is [", bias.rows, ", ", bias.cols,
                     "]; it must be [1, num_experts = ", options.num_experts, "]"));
  }
  return CheckActivation("the gate's selection bias", bias.dtype);
}

// As float32, row-major.
std::vector<float> Widen(const MatrixView& view) {
  std::vector<float> values(view.rows * view.cols);
  const size_t bytes = BytesOf(view.dtype);
  for (size_t row = 0; row < view.rows; ++row) {
    const uint8_t* source = view.data + row * view.row_stride * bytes;
    float* target = values.data() + row * view.cols;
    if (view.col_stride == 1) {
      ConvertElements(view.dtype, source, DType::kF32, target, view.cols);
      continue;
    }
    for (size_t col = 0; col < view.cols; ++col) {
      ConvertElements(view.dtype, source + col * view.col_stride * bytes, DType::kF32, target + col,
                      1);
    }
  }
  return values;
}

}  // namespace

Gate::Gate(const RoutingOptions& options, size_t d_model, DType model_dtype, TieOrder ties,
           std::unique_ptr<const GateMatmul> product, std::vector<float> select_bias)
    : options_(options),
      d_model_(d_model),
      model_dtype_(model_dtype),
      ties_(ties),
      product_(std::move(product)),
      select_bias_(std::move(select_bias)) {}

absl::StatusOr<std::unique_ptr<const Gate>> Gate::Create(const GateWeights& weights,
                                                         const RoutingOptions& options,
                                                         DType model_dtype, TieOrder ties) {
  RETURN_IF_ERROR(ValidateRouting(options));
  RETURN_IF_ERROR(CheckActivation("the model", model_dtype));
  RETURN_IF_ERROR(CheckWeights(weights, options));
  std::vector<float> weight = Widen(weights.weight);
  if (options.logit_dtype == LogitDType::kModel) {
    RoundTo(model_dtype, absl::MakeSpan(weight));
  }
  std::vector<float> bias;
  if (options.select_bias) {
    bias = Widen(weights.select_bias);
    const auto nan = std::find_if(bias.begin(), bias.end(), [](float b) { return std::isnan(b); });
    if (nan != bias.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the gate's selection bias of expert ", nan - bias.begin(),
                       " is NaN: every token would go there; the checkpoint is damaged"));
    }
  }
  const size_t d_model = weights.weight.cols;
  ASSIGN_OR_RETURN(auto product, GateMatmul::Create(weight.data(), options.num_experts, d_model));
  return std::unique_ptr<const Gate>(
      new Gate(options, d_model, model_dtype, ties, std::move(product), std::move(bias)));
}

absl::Status Gate::Logits(const void* hidden_states, DType dtype, size_t tokens,
                          GateScratch* scratch, absl::Span<float> logits) const {
  RETURN_IF_ERROR(CheckActivation("hidden_states", dtype));
  const size_t experts = options_.num_experts;
  RETURN_IF_ERROR(CheckSize("logits", logits.size(), tokens * experts));
  const auto* source = static_cast<const uint8_t*>(hidden_states);
  if (dtype == DType::kF32 && reinterpret_cast<uintptr_t>(source) % alignof(float) == 0) {
    RETURN_IF_ERROR(product_->Run(reinterpret_cast<const float*>(source), tokens, logits.data(),
                                  &scratch->workspace));
  } else {
    scratch->widened.Resize(std::min(tokens, kRowsPerBlock) * d_model_ * sizeof(float));
    for (size_t row = 0; row < tokens; row += kRowsPerBlock) {
      const size_t rows = std::min(kRowsPerBlock, tokens - row);
      ConvertElements(dtype, source + row * d_model_ * BytesOf(dtype), DType::kF32,
                      scratch->widened.data(), rows * d_model_);
      RETURN_IF_ERROR(product_->Run(scratch->widened.as<float>(), rows,
                                    logits.data() + row * experts, &scratch->workspace));
    }
  }
  if (options_.logit_dtype == LogitDType::kModel) {
    RoundTo(model_dtype_, logits);
  }
  return absl::OkStatus();
}

absl::Status Gate::Route(const void* hidden_states, DType dtype, size_t tokens,
                         GateScratch* scratch, absl::Span<uint32_t> expert_ids,
                         absl::Span<float> weights) const {
  RETURN_IF_ERROR(CheckSize("expert_ids", expert_ids.size(), tokens * options_.top_k));
  RETURN_IF_ERROR(CheckSize("weights", weights.size(), tokens * options_.top_k));
  const size_t size = tokens * options_.num_experts;
  if (scratch->logits.size() < size) {
    scratch->logits.resize(size);
  }
  const absl::Span<float> logits(scratch->logits.data(), size);
  RETURN_IF_ERROR(Logits(hidden_states, dtype, tokens, scratch, logits));
  RouteTokens(options_, ties_, model_dtype_, logits, select_bias_, tokens, expert_ids, weights,
              &scratch->routing);
  return absl::OkStatus();
}

}  // namespace expertmesh
