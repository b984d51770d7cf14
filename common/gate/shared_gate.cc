#include "common/gate/shared_gate.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/gate/weights.h"
#include "common/tensor/decode_matrix.h"

namespace expertmesh::gate {
namespace {

// Sums of every kLanes-th product side by side: fast, and in one order whatever the batch.
constexpr size_t kLanes = 16;

}  // namespace

absl::StatusOr<std::unique_ptr<const SharedGate>> SharedGate::Create(const MatrixView& weight,
                                                                     size_t d_model,
                                                                     Dtype activation_dtype) {
  if (weight.rows != 1 || weight.cols != d_model || !IsActivationDtype(weight.dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the shared experts' gate is ", std::string(NameOf(weight.dtype)), " [", weight.rows, ", ",
        weight.cols, "]; it must be F32, BF16 or F16 [1, d_model = ", d_model, "]"));
  }
  RETURN_IF_ERROR(CheckDecodable("the shared experts' gate", weight));
  std::vector<float> values = DecodeMatrix(weight);
  RoundTo(activation_dtype, absl::MakeSpan(values));
  return std::unique_ptr<const SharedGate>(new SharedGate(std::move(values), activation_dtype));
}

void SharedGate::Weights(const void* hidden_states, Dtype dtype, absl::Span<float> weights) const {
  const size_t d_model = weight_.size();
  const auto* source = static_cast<const uint8_t*>(hidden_states);
  constexpr size_t kBlock = 256;  // Elements widened at a time.
  float block[kBlock];
  for (float& weight : weights) {
    float lanes[kLanes] = {};
    for (size_t begin = 0; begin < d_model; begin += kBlock) {
      const size_t count = std::min(kBlock, d_model - begin);
      ConvertElements(dtype, source, Dtype::kF32, block, count);
      source += count * BytesOf(dtype);
      const float* gate = weight_.data() + begin;
      size_t i = 0;
      for (; i + kLanes <= count; i += kLanes) {
        for (size_t lane = 0; lane < kLanes; ++lane) {
          lanes[lane] += block[i + lane] * gate[i + lane];
        }
      }
      for (size_t lane = 0; i < count; ++i, ++lane) {
        lanes[lane] += block[i] * gate[i];
      }
    }
    const float product =
        Rounded(activation_dtype_, std::accumulate(std::begin(lanes), std::end(lanes), 0.0f));
    weight =
        Rounded(activation_dtype_, static_cast<float>(1.0 / (1.0 + std::exp(-double{product}))));
  }
}

}  // namespace expertmesh::gate
