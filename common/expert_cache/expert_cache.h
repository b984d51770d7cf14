// Which experts are in memory, when there is not enough for all.
#ifndef EXPERTMESH_COMMON_EXPERT_CACHE_EXPERT_CACHE_H_
#define EXPERTMESH_COMMON_EXPERT_CACHE_EXPERT_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/expert_cache/cache_policy.h"

namespace expertmesh::expert_cache {

struct CachedLayer {
  uint32_t experts = 0;
  // An expert in memory.
  uint64_t expert_bytes = 0;
};

// An expert of a layer, which is named by its place.
struct CachedExpert {
  size_t layer = 0;
  uint32_t expert = 0;

  friend bool operator==(const CachedExpert&, const CachedExpert&) = default;
};

// Only keeps the books: who has the weights loads and frees them. Begins empty. Not thread-safe.
class ExpertCache {
 public:
  // `policy` knows the same layers. Never null.
  ExpertCache(std::vector<CachedLayer> layers, uint64_t capacity_bytes,
              std::unique_ptr<CachePolicy> policy);

  // A batch of `layer` uses these of its experts, each named once. `missed` becomes those that were
  // not there, `dropped` what is not kept: while there is too much, what the policy finds worth
  // least goes, which may be what was loaded just now.
  void Use(size_t layer, absl::Span<const uint32_t> experts, std::vector<uint32_t>* missed,
           std::vector<CachedExpert>* dropped);

  bool Has(size_t layer, uint32_t expert) const { return held_[layer][expert]; }
  uint64_t bytes() const { return bytes_; }

 private:
  void Shrink(std::vector<CachedExpert>* dropped);

  const std::vector<CachedLayer> layers_;
  const uint64_t capacity_bytes_;
  const std::unique_ptr<CachePolicy> policy_;
  std::vector<std::vector<bool>> held_;
  uint64_t bytes_ = 0;
  // Working memory: what may go, with its worth.
  std::vector<std::pair<double, CachedExpert>> candidates_;
};

}  // namespace expertmesh::expert_cache

#endif  // EXPERTMESH_COMMON_EXPERT_CACHE_EXPERT_CACHE_H_
