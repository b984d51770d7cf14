#include "common/expert_cache/expert_cache.h"

#include <algorithm>

namespace expertmesh::expert_cache {

ExpertCache::ExpertCache(std::vector<CachedLayer> layers, uint64_t capacity_bytes,
                         std::unique_ptr<CachePolicy> policy)
    : layers_(std::move(layers)), capacity_bytes_(capacity_bytes), policy_(std::move(policy)) {
  for (const CachedLayer& layer : layers_) {
    held_.emplace_back(layer.experts);
  }
}

void ExpertCache::Use(size_t layer, absl::Span<const uint32_t> experts,
                      std::vector<uint32_t>* missed, std::vector<CachedExpert>* dropped) {
  missed->clear();
  dropped->clear();
  for (const uint32_t expert : experts) {
    if (!held_[layer][expert]) {
      missed->push_back(expert);
      held_[layer][expert] = true;
      bytes_ += layers_[layer].expert_bytes;
    }
  }
  policy_->Use(layer, experts);
  if (bytes_ > capacity_bytes_) {
    Shrink(dropped);
  }
}

void ExpertCache::Shrink(std::vector<CachedExpert>* dropped) {
  candidates_.clear();
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    for (uint32_t expert = 0; expert < layers_[layer].experts; ++expert) {
      if (held_[layer][expert]) {
        candidates_.emplace_back(policy_->Worth(layer, expert), CachedExpert{layer, expert});
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
  while (bytes_ > capacity_bytes_) {
    std::pop_heap(candidates_.begin(), candidates_.end(), later);
    const CachedExpert expert = candidates_.back().second;
    candidates_.pop_back();
    held_[expert.layer][expert.expert] = false;
    bytes_ -= layers_[expert.layer].expert_bytes;
    dropped->push_back(expert);
  }
}

}  // namespace expertmesh::expert_cache
