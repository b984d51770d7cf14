// Which experts are worth their memory, when there is not enough for all. Published results on this
// contradict one another, so it is chosen by replaying a recording of one's own traffic
// (`expertmesh replay --cache`).
#ifndef EXPERTMESH_COMMON_EXPERT_CACHE_CACHE_POLICY_H_
#define EXPERTMESH_COMMON_EXPERT_CACHE_CACHE_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace expertmesh::expert_cache {

// A layer is named by its place among the MoE layers, in the order in which they run.

// Not thread-safe.
class CachePolicy {
 public:
  virtual ~CachePolicy() = default;

  // A batch of `layer` uses these of its experts, each named once.
  virtual void Use(size_t layer, absl::Span<const uint32_t> experts) = 0;

  // What it is worth to keep an expert until it is used again: of two the one with less goes first.
  virtual double Worth(size_t layer, uint32_t expert) const = 0;
};

// The policies' names: "lru" (used last), "frequency" (used in most of the layer's batches of
// late), "predictive" (probably used soonest: by its frequency, by how far its layer is ahead, and
// for the next layer by what followed the experts that are used now).
std::vector<std::string> CachePolicyNames();

// `experts`: how many each layer has. INVALID_ARGUMENT names the policies there are.
absl::StatusOr<std::unique_ptr<CachePolicy>> MakeCachePolicy(absl::string_view name,
                                                             absl::Span<const uint32_t> experts);

}  // namespace expertmesh::expert_cache

#endif  // EXPERTMESH_COMMON_EXPERT_CACHE_CACHE_POLICY_H_
