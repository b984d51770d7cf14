#include "router_service/combine.h"

#include <algorithm>
#include <vector>

namespace expertmesh {
namespace {

void AddRow(const float* source, size_t count, float* target) {
  for (size_t i = 0; i < count; ++i) {
    target[i] += source[i];
  }
}

}  // namespace

void Combine(absl::Span<const Contribution> contributions, const float* shared, size_t rows,
             size_t d_model, float* output) {
  std::fill_n(output, rows * d_model, 0.0f);
  for (const Contribution& contribution : contributions) {
    for (size_t i = 0; i < contribution.rows.size(); ++i) {
      AddRow(contribution.partials + i * d_model, d_model, output + contribution.rows[i] * d_model);
    }
  }
  if (shared != nullptr) {
    AddRow(shared, rows * d_model, output);
  }
}

void AddComplements(const RoutedTokens& routed, const void* hidden_states, DType dtype,
                    size_t d_model, float* output) {
  const auto* source = static_cast<const uint8_t*>(hidden_states);
  std::vector<float> row(d_model);
  for (size_t token = 0; token < routed.tokens(); ++token) {
    float left = 1.0f;
    for (uint32_t at = routed.token_begin[token]; at < routed.token_begin[token + 1]; ++at) {
      left -= routed.weights[at];
    }
    ConvertElements(dtype, source + token * d_model * BytesOf(dtype), DType::kF32, row.data(),
                    d_model);
    for (size_t i = 0; i < d_model; ++i) {
      output[token * d_model + i] += left * row[i];
    }
  }
}

}  // namespace expertmesh
