#include "common/expert_cache/use_frequency.h"

#include <cmath>

namespace expertmesh::expert_cache {
namespace {

// Beyond this everything is scaled down: shares stay what they are.
constexpr double kLargestWeight = 1e100;

}  // namespace

void UseFrequency::Use(absl::Span<const uint32_t> experts) {
  static const double growth = std::exp2(1 / kHalfLife);
  for (const uint32_t expert : experts) {
    uses_[expert] += weight_;
  }
  batches_ += weight_;
  newest_weight_ = weight_;
  weight_ *= growth;
  if (weight_ > kLargestWeight) {
    for (double& uses : uses_) {
      uses /= weight_;
    }
    batches_ /= weight_;
    newest_weight_ /= weight_;
    weight_ = 1;
  }
}

}  // namespace expertmesh::expert_cache
