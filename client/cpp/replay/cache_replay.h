// What a cache of experts would have made of recorded traffic.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_CACHE_REPLAY_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_CACHE_REPLAY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/balance/routing_record.h"

namespace expertmesh::replay {

// Which experts each batch used, in the order of the recording. Immutable.
class CacheTrace {
 public:
  // NAME.1 is read, too, if it is of the same model as NAME.
  //   RESOURCE_EXHAUSTED  it has more than kMostUses uses.
  //   INVALID_ARGUMENT    it has no batches.
  // Further as RoutingRecordReader.
  static absl::StatusOr<CacheTrace> Read(const std::string& name);

  static constexpr size_t kMostUses = size_t{1} << 28;

  // For batches that were not recorded: each used experts once, as named.
  explicit CacheTrace(std::vector<balance::RecordedLayer> layers) : layers_(std::move(layers)) {}
  void Add(size_t layer, absl::Span<const uint32_t> experts);

  absl::Span<const balance::RecordedLayer> layers() const { return layers_; }
  size_t batches() const { return layer_of_.size(); }
  uint64_t tokens() const { return tokens_; }
  // Place of its layer, and its experts, each once.
  size_t layer(size_t batch) const { return layer_of_[batch]; }
  absl::Span<const uint32_t> experts(size_t batch) const {
    return absl::MakeConstSpan(uses_).subspan(begin_[batch], begin_[batch + 1] - begin_[batch]);
  }

 private:
  absl::Status ReadFile(const std::string& path);

  std::vector<balance::RecordedLayer> layers_;
  std::vector<uint16_t> layer_of_;
  std::vector<uint32_t> begin_ = {0};
  std::vector<uint32_t> uses_;
  uint64_t tokens_ = 0;
};

// A policy that knows what comes: no other has more hits where all experts are of one size (Belady
// 1966, with the freedom not to keep what was just loaded).
inline constexpr char kOfflinePolicy[] = "optimum";

struct CacheOutcome {
  // Batches times the experts that each used.
  uint64_t uses = 0;
  // Uses of what was there.
  uint64_t hits = 0;
  // Read for the others.
  uint64_t loaded_bytes = 0;

  double hit_rate() const {
    return uses > 0 ? static_cast<double>(hits) / static_cast<double>(uses) : 0;
  }
};

// Runs `trace` through a cache that begins empty. `policy`: of expert_cache::CachePolicyNames(), or
// kOfflinePolicy. `expert_bytes`: of each layer.
//   INVALID_ARGUMENT  there is no such policy.
absl::StatusOr<CacheOutcome> RunCache(const CacheTrace& trace,
                                      absl::Span<const uint64_t> expert_bytes,
                                      uint64_t capacity_bytes, absl::string_view policy);

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_CACHE_REPLAY_H_
