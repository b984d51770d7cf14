#include "common/expert_cache/expert_cache.h"

#include <algorithm>

#include "common/base/check.h"

namespace expertmesh::expert_cache {

ExpertCache::ExpertCache(absl::Span<const uint32_t> experts, uint64_t capacity_bytes,
                         std::unique_ptr<CachePolicy> policy)
    : capacity_bytes_(capacity_bytes), policy_(std::move(policy)) {
  for (const uint32_t count : experts) {
    held_.emplace_back(count);
  }
}

void ExpertCache::Add(size_t layer, uint32_t expert, uint64_t bytes) {
  EXPERTMESH_CHECK(bytes > 0 && !Has(layer, expert));
  held_[layer][expert] = bytes;
  bytes_ += bytes;
}

void ExpertCache::Remove(size_t layer, uint32_t expert) {
  bytes_ -= held_[layer][expert];
  held_[layer][expert] = 0;
}

void ExpertCache::MakeRoom(uint64_t bytes, size_t layer, absl::Span<const uint32_t> kept,
                           std::vector<CachedExpert>* dropped) {
  dropped->clear();
  if (HasRoom(bytes)) {
    return;
  }
  candidates_.clear();
  for (size_t at = 0; at < held_.size(); ++at) {
    for (uint32_t expert = 0; expert < held_[at].size(); ++expert) {
      const bool may_go = at != layer || std::find(kept.begin(), kept.end(), expert) == kept.end();
      if (Has(at, expert) && may_go) {
        candidates_.emplace_back(policy_->Worth(at, expert), CachedExpert{at, expert});
      }
    }
  }
  // The one worth least is on top; of equals the first.
  const auto later = [](const auto& a, const auto& b) {
    return a.first != b.first                 ? a.first > b.first
           : a.second.layer != b.second.layer ? a.second.layer > b.second.layer
                                              : a.second.expert > b.second.expert;
  };
  std::make_heap(candidates_.begin(), candidates_.end(), later);
  while (!HasRoom(bytes) && !candidates_.empty()) {
    std::pop_heap(candidates_.begin(), candidates_.end(), later);
    const CachedExpert expert = candidates_.back().second;
    candidates_.pop_back();
    Remove(expert.layer, expert.expert);
    dropped->push_back(expert);
  }
}

}  // namespace expertmesh::expert_cache
