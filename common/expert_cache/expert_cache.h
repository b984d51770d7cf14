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

// An expert of a layer, which is named by its place.
struct CachedExpert {
  size_t layer = 0;
  uint32_t expert = 0;

  friend bool operator==(const CachedExpert&, const CachedExpert&) = default;
};

// Only keeps the books: who has the weights loads and frees them. Begins empty. Not thread-safe.
class ExpertCache {
 public:
  // `experts`: how many each layer has; `policy` knows the same layers, and is never null.
  ExpertCache(absl::Span<const uint32_t> experts, uint64_t capacity_bytes,
              std::unique_ptr<CachePolicy> policy);

  // A batch of `layer` uses these of its experts, each named once.
  void Use(size_t layer, absl::Span<const uint32_t> experts) { policy_->Use(layer, experts); }

  // Drops what the policy finds worth least until so many more bytes fit, or until nothing is left
  // that may go: `kept`, experts of `layer`, may not. `dropped` becomes those that went.
  void MakeRoom(uint64_t bytes, size_t layer, absl::Span<const uint32_t> kept,
                std::vector<CachedExpert>* dropped);

  // An expert that is not there is from now on. For more than the capacity only until MakeRoom.
  void Add(size_t layer, uint32_t expert, uint64_t bytes);
  // It is there no more, if it was.
  void Remove(size_t layer, uint32_t expert);

  bool Has(size_t layer, uint32_t expert) const { return held_[layer][expert] != 0; }
  bool HasRoom(uint64_t bytes) const { return bytes_ + bytes <= capacity_bytes_; }
  uint64_t bytes() const { return bytes_; }

 private:
  const uint64_t capacity_bytes_;
  const std::unique_ptr<CachePolicy> policy_;
  std::vector<std::vector<uint64_t>> held_;  // Bytes; 0: not there.
  uint64_t bytes_ = 0;
  // Working memory: what may go, with its worth.
  std::vector<std::pair<double, CachedExpert>> candidates_;
};

}  // namespace expertmesh::expert_cache

#endif  // EXPERTMESH_COMMON_EXPERT_CACHE_EXPERT_CACHE_H_
