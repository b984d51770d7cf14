#include "common/gate/gate.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"
#include "common/gate/noise.h"
#include "common/gate/weights.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/decode_matrix.h"

namespace expertmesh::gate {
namespace {

// Rows widened to float32 at a time: the copy stays in the cache.
constexpr size_t kRowsPerBlock = 64;

absl::Status CheckActivation(absl::string_view what, Dtype dtype) {
  if (IsActivationDtype(dtype)) {
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

// One row of num_experts values, or (`rows` > 1) a matrix, wanted because of `option`.
absl::Status CheckShape(absl::string_view what, const MatrixView& view, size_t rows, size_t cols,
                        absl::string_view shape, absl::string_view option) {
  if (view.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is missing, which ", option, " needs: the checkpoint has none"));
  }
  if (view.rows != rows || view.cols != cols) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is [", view.rows, ", ", view.cols,
                                                   "]; it must be ", shape, " = [", rows, ", ",
                                                   cols, "]"));
  }
  return CheckActivation(what, view.dtype);
}

absl::Status CheckWeights(const GateWeights& weights, const RoutingOptions& options) {
  const MatrixView& weight = weights.weight;
  if (weight.rows != options.num_experts || weight.cols == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the gate's weight is [", weight.rows, ", ", weight.cols,
                     "]; it must be [num_experts = ", options.num_experts, ", d_model]"));
  }
  RETURN_IF_ERROR(CheckActivation("the gate's weight", weight.dtype));
  if (options.logit_bias) {
    RETURN_IF_ERROR(CheckShape("the gate's logit bias", weights.logit_bias, 1, options.num_experts,
                               "[1, num_experts]", "logit_bias"));
  }
  if (options.noise == Noise::kLearnedNormal) {
    RETURN_IF_ERROR(CheckShape("the gate's noise weight", weights.noise, options.num_experts,
                               weight.cols, "[num_experts, d_model]", "noise = learned_normal"));
  }
  return absl::OkStatus();
}

absl::Status CheckNoNan(absl::Span<const float> select_bias) {
  const auto nan = std::find_if(select_bias.begin(), select_bias.end(),
                                [](float bias) { return std::isnan(bias); });
  if (nan == select_bias.end()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the gate's selection bias of expert ", nan - select_bias.begin(),
                   " is NaN: every token would go there; the checkpoint is damaged"));
}

size_t TokensOf(absl::Span<const RequestTokens> requests) {
  size_t tokens = 0;
  for (const RequestTokens& request : requests) {
    tokens += request.tokens;
  }
  return tokens;
}

// Jitters `rows` rows from row `first` of the batch on.
void Jitter(const RoutingRules& rules, absl::Span<const RequestTokens> requests, size_t first,
            size_t rows, size_t d_model, float* values) {
  size_t begin = 0;  // First row of the request.
  for (const RequestTokens& request : requests) {
    const size_t end = begin + request.tokens;
    for (size_t row = std::max(first, begin); row < std::min(first + rows, end); ++row) {
      JitterRow(rules.options, *rules.random, {request.seed, row - begin},
                {values + (row - first) * d_model, d_model});
    }
    begin = end;
  }
}

template <typename T>
size_t BytesOfVector(const std::vector<T>& values) {
  return values.capacity() * sizeof(T);
}

}  // namespace

size_t GateScratch::MemoryBytes() const {
  size_t bytes = BytesOfVector(logits) + BytesOfVector(noise_width) +
                 BytesOfVector(routing.best_scores) + BytesOfVector(routing.all_scores) +
                 BytesOfVector(routing.all_choices);
  for (const Block& block : blocks) {
    bytes += block.widened.capacity() + block.product.padded.capacity() +
             block.product.narrowed.capacity() + block.product.tiles.x.capacity() +
             block.product.tiles.y.capacity();
  }
  return bytes;
}

absl::StatusOr<std::vector<float>> ReadSelectBias(const GateWeights& weights,
                                                  const RoutingOptions& options) {
  if (!options.select_bias) {
    return std::vector<float>();
  }
  RETURN_IF_ERROR(CheckShape("the gate's selection bias", weights.select_bias, 1,
                             options.num_experts, "[1, num_experts]", "select_bias"));
  std::vector<float> bias = DecodeMatrix(weights.select_bias);
  RETURN_IF_ERROR(CheckNoNan(bias));
  return bias;
}

Gate::Gate(const RoutingRules& rules, size_t d_model, Parameters parameters)
    : rules_(rules), d_model_(d_model), parameters_(std::move(parameters)) {}

absl::StatusOr<std::unique_ptr<const Gate>> Gate::Create(const GateWeights& weights,
                                                         const RoutingOptions& options,
                                                         Dtype activation_dtype, TieOrder ties,
                                                         const RandomSource& random) {
  RETURN_IF_ERROR(ValidateRouting(options));
  RETURN_IF_ERROR(CheckActivation("activation_dtype", activation_dtype));
  RETURN_IF_ERROR(CheckWeights(weights, options));
  const auto decode = [&](const MatrixView& view) {
    std::vector<float> values = DecodeMatrix(view);
    if (options.logit_dtype == LogitDtype::kModel) {
      RoundTo(activation_dtype, absl::MakeSpan(values));
    }
    return values;
  };
  const size_t d_model = weights.weight.cols;
  Parameters parameters;
  parameters.product =
      GateMatmul::Create(decode(weights.weight).data(), options.num_experts, d_model);
  if (options.noise == Noise::kLearnedNormal) {
    parameters.noise =
        GateMatmul::Create(decode(weights.noise).data(), options.num_experts, d_model);
  }
  if (options.logit_bias) {
    parameters.logit_bias = decode(weights.logit_bias);
  }
  return std::unique_ptr<const Gate>(
      new Gate({options, ties, activation_dtype, &random}, d_model, std::move(parameters)));
}

void Gate::Multiply(const GateMatmul& product, absl::Span<const float> bias, const Rows& rows,
                    std::vector<GateScratch::Block>* blocks, ThreadPool* pool,
                    absl::Span<float> outputs) const {
  const size_t count = (rows.count + kRowsPerBlock - 1) / kRowsPerBlock;
  const size_t slots = pool == nullptr ? 1 : pool->slots();
  if (blocks->size() < slots) {
    blocks->resize(slots);
  }
  const auto multiply = [&](size_t block, size_t slot) {
    const size_t first = block * kRowsPerBlock;
    MultiplyBlock(product, bias, rows, first, std::min(kRowsPerBlock, rows.count - first),
                  &(*blocks)[slot], outputs);
  };
  if (pool != nullptr) {
    pool->ParallelFor(count, multiply);
  } else {
    for (size_t block = 0; block < count; ++block) {
      multiply(block, 0);
    }
  }
}

void Gate::MultiplyBlock(const GateMatmul& product, absl::Span<const float> bias, const Rows& rows,
                         size_t first, size_t count, GateScratch::Block* scratch,
                         absl::Span<float> outputs) const {
  const size_t experts = rules_.options.num_experts;
  const auto* const source =
      static_cast<const uint8_t*>(rows.values) + first * d_model_ * BytesOf(rows.dtype);
  outputs = outputs.subspan(first * experts, count * experts);
  if (rows.dtype == Dtype::kBF16 && rows.jittered.empty() && product.TakesBF16()) {
    product.RunBF16(source, count, outputs.data(), &scratch->product);
  } else if (rows.dtype == Dtype::kF32 &&
             reinterpret_cast<uintptr_t>(source) % alignof(float) == 0 && rows.jittered.empty()) {
    product.Run(reinterpret_cast<const float*>(source), count, outputs.data(), &scratch->product);
  } else {
    AlignedBuffer& widened = scratch->widened;
    widened.Resize(count * d_model_ * sizeof(float));
    ConvertElements(rows.dtype, source, Dtype::kF32, widened.data(), count * d_model_);
    Jitter(rules_, rows.jittered, first, count, d_model_, widened.as<float>());
    product.Run(widened.as<float>(), count, outputs.data(), &scratch->product);
  }
  for (size_t row = 0; row < count && !bias.empty(); ++row) {
    for (size_t expert = 0; expert < experts; ++expert) {
      outputs[row * experts + expert] += bias[expert];
    }
  }
  if (rules_.options.logit_dtype == LogitDtype::kModel) {
    RoundTo(rules_.activation_dtype, outputs);
  }
}

absl::Status Gate::Logits(const void* hidden_states, Dtype dtype, size_t tokens,
                          absl::Span<float> logits, ThreadPool* pool) const {
  RETURN_IF_ERROR(CheckActivation("hidden_states", dtype));
  RETURN_IF_ERROR(CheckSize("logits", logits.size(), tokens * rules_.options.num_experts));
  std::vector<GateScratch::Block> blocks;
  Multiply(*parameters_.product, parameters_.logit_bias, {hidden_states, dtype, tokens}, &blocks,
           pool, logits);
  return absl::OkStatus();
}

absl::Status Gate::Route(const void* hidden_states, Dtype dtype,
                         absl::Span<const RequestTokens> requests, const SelectBias& select_bias,
                         GateScratch* scratch, RoutedTokens* routed, ThreadPool* pool) const {
  RETURN_IF_ERROR(CheckActivation("hidden_states", dtype));
  for (const RequestTokens& request : requests) {
    RETURN_IF_ERROR(CheckRequestTokens(rules_.options, request));
  }
  if (rules_.options.select_bias) {
    RETURN_IF_ERROR(
        CheckSize("select_bias", select_bias.checkpoint.size(), rules_.options.num_experts));
  }
  if (!select_bias.live.empty()) {
    RETURN_IF_ERROR(
        CheckSize("the live bias", select_bias.live.size(), rules_.options.num_experts));
  }
  const size_t tokens = TokensOf(requests);
  const size_t size = tokens * rules_.options.num_experts;
  const auto room = [size](std::vector<float>* values) {
    values->resize(std::max(values->size(), size));
    return absl::Span<float>(values->data(), size);
  };
  RoutingInput input;
  input.requests = requests;
  input.select_bias = select_bias;
  if (rules_.options.choice != Choice::kHash) {
    const absl::Span<float> logits = room(&scratch->logits);
    const bool jitter = rules_.options.noise == Noise::kJitter;
    const Rows rows{hidden_states, dtype, tokens,
                    jitter ? requests : absl::Span<const RequestTokens>()};
    Multiply(*parameters_.product, parameters_.logit_bias, rows, &scratch->blocks, pool, logits);
    input.logits = logits;
  }
  if (parameters_.noise != nullptr) {
    const absl::Span<float> width = room(&scratch->noise_width);
    Multiply(*parameters_.noise, {}, {hidden_states, dtype, tokens}, &scratch->blocks, pool, width);
    input.noise_width = width;
  }
  RouteTokens(rules_, input, &scratch->routing, routed);
  return absl::OkStatus();
}

size_t Gate::bytes() const {
  const size_t noise = parameters_.noise == nullptr ? 0 : parameters_.noise->bytes();
  return parameters_.product->bytes() + noise + parameters_.logit_bias.size() * sizeof(float);
}

}  // namespace expertmesh::gate
