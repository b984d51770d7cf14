#include "common/gate/sparse_mixer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/check.h"
#include "common/gate/row_kernels.h"
#include "common/gate/weights.h"

namespace expertmesh::gate {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// First of the largest logits but `except`; NaN counts as the largest.
uint32_t Largest(absl::Span<const float> logits, size_t except) {
  size_t best = except == 0 ? 1 : 0;
  for (size_t i = best + 1; i < logits.size() && !std::isnan(logits[best]); ++i) {
    if (i != except && !(logits[i] <= logits[best])) {
      best = i;
    }
  }
  return static_cast<uint32_t>(best);
}

}  // namespace

void SparseMixer(absl::Span<const float> logits, float epsilon, Dtype dtype,
                 std::vector<float>* row, absl::Span<uint32_t> ids, absl::Span<float> weights) {
  EXPERTMESH_CHECK(logits.size() >= 2 && ids.size() == 2 && weights.size() == 2);
  const size_t experts = logits.size();
  const float threshold = Rounded(dtype, 2.0f * epsilon);
  row->resize(std::max(row->size(), PaddedRow(experts)));
  size_t taken = experts;  // No expert yet.
  for (size_t slot = 0; slot < 2; ++slot) {
    const uint32_t best = Largest(logits, taken);
    const float largest = logits[best];
    for (size_t expert = 0; expert < experts; ++expert) {
      const float logit = logits[expert];
      const float factor = std::max(std::fabs(logit), largest);
      const float distance = Rounded(dtype, Rounded(dtype, largest - logit) / factor);
      // 0 / 0 is not above the threshold: such an expert stays.
      (*row)[expert] = expert == taken || distance > threshold ? -kInfinity : logit;
    }
    BestRowKernels().softmax(row->data(), experts);
    ids[slot] = best;
    weights[slot] = Rounded(dtype, (*row)[best]);
    taken = best;
  }
}

}  // namespace expertmesh::gate
