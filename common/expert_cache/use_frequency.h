// How often each expert of a layer is used, of late.
#ifndef EXPERTMESH_COMMON_EXPERT_CACHE_USE_FREQUENCY_H_
#define EXPERTMESH_COMMON_EXPERT_CACHE_USE_FREQUENCY_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace expertmesh::expert_cache {

// Shares of a layer's batches, in which each batch counts half as much as one kHalfLife batches
// later. Not thread-safe.
class UseFrequency {
 public:
  static constexpr double kHalfLife = 512;

  explicit UseFrequency(uint32_t experts) : uses_(experts) {}

  void Use(absl::Span<const uint32_t> experts);

  // How many batches there were, counted with the same weights.
  double batches() const { return batches_ / newest_weight_; }
  // 0 to 1; 0 before the first batch.
  double Share(uint32_t expert) const { return batches_ > 0 ? uses_[expert] / batches_ : 0; }

 private:
  // A batch adds more than the one before it, instead of all others becoming less.
  double weight_ = 1;
  double newest_weight_ = 1;
  double batches_ = 0;
  std::vector<double> uses_;
};

}  // namespace expertmesh::expert_cache

#endif  // EXPERTMESH_COMMON_EXPERT_CACHE_USE_FREQUENCY_H_
