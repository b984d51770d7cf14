#include "common/gate/complement.h"

#include <algorithm>
#include <cstdint>

namespace expertmesh::gate {

void AddComplements(const RoutedTokens& routed, const void* hidden_states, Dtype dtype,
                    size_t d_model, size_t first, absl::Span<float> output) {
  const auto* source = static_cast<const uint8_t*>(hidden_states);
  constexpr size_t kBlock = 256;  // Elements widened at a time.
  float block[kBlock];
  const size_t end = first + output.size() / d_model;
  for (size_t token = first; token < end; ++token) {
    float* const sum = output.data() + (token - first) * d_model;
    float left = 1.0f;
    for (uint32_t at = routed.token_begin[token]; at < routed.token_begin[token + 1]; ++at) {
      left -= routed.weights[at];
    }
    for (size_t begin = 0; begin < d_model; begin += kBlock) {
      const size_t count = std::min(kBlock, d_model - begin);
      const size_t at = token * d_model + begin;
      ConvertElements(dtype, source + at * BytesOf(dtype), Dtype::kF32, block, count);
      for (size_t i = 0; i < count; ++i) {
        sum[begin + i] += left * block[i];
      }
    }
  }
}

}  // namespace expertmesh::gate
