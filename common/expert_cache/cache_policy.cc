#include "common/expert_cache/cache_policy.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/expert_cache/use_frequency.h"

namespace expertmesh::expert_cache {
namespace {

class LruPolicy final : public CachePolicy {
 public:
  explicit LruPolicy(absl::Span<const uint32_t> experts) {
    for (const uint32_t count : experts) {
      last_use_.emplace_back(count);
    }
  }

  void Use(size_t layer, absl::Span<const uint32_t> experts) override {
    ++batches_;
    for (const uint32_t expert : experts) {
      last_use_[layer][expert] = batches_;
    }
  }

  double Worth(size_t layer, uint32_t expert) const override {
    return static_cast<double>(last_use_[layer][expert]);
  }

 private:
  uint64_t batches_ = 0;
  std::vector<std::vector<uint64_t>> last_use_;
};

class FrequencyPolicy final : public CachePolicy {
 public:
  explicit FrequencyPolicy(absl::Span<const uint32_t> experts)
      : layers_(experts.begin(), experts.end()) {}

  void Use(size_t layer, absl::Span<const uint32_t> experts) override {
    layers_[layer].Use(experts);
  }

  double Worth(size_t layer, uint32_t expert) const override {
    return layers_[layer].Share(expert);
  }

 private:
  std::vector<UseFrequency> layers_;
};

// Worth is the expected number of batches until the next use, taken as negative. An expert that is
// in a share p of its layer's batches misses 1/p - 1 of them on average.
class PredictivePolicy final : public CachePolicy {
 public:
  explicit PredictivePolicy(absl::Span<const uint32_t> experts)
      : layers_(experts.begin(), experts.end()) {
    for (size_t layer = 0; layer < experts.size(); ++layer) {
      // [experts of this layer, experts of the next]
      followers_.emplace_back(experts[layer], UseFrequency(experts[Next(layer)]));
    }
  }

  void Use(size_t layer, absl::Span<const uint32_t> experts) override {
    layers_[layer].Use(experts);
    if (started_ && Next(now_) == layer) {
      for (const uint32_t before : used_) {
        followers_[now_][before].Use(experts);
      }
    }
    started_ = true;
    now_ = layer;
    used_.assign(experts.begin(), experts.end());
  }

  double Worth(size_t layer, uint32_t expert) const override {
    const size_t count = layers_.size();
    const size_t ahead = layer > now_ ? layer - now_ : layer + count - now_;
    double share = layers_[layer].Share(expert);
    if (layer == Next(now_)) {
      share = FollowingShare(expert, share);
    }
    const double missed = 1 / std::max(share, kLeastShare) - 1;
    return -(static_cast<double>(ahead) + missed * static_cast<double>(count));
  }

 private:
  // An expert that was never seen is not worth infinitely little.
  static constexpr double kLeastShare = 1e-6;
  // After so many batches what was seen counts as much as what is to be expected without it.
  static constexpr double kDoubt = 32;

  size_t Next(size_t layer) const { return layer + 1 < layers_.size() ? layer + 1 : 0; }

  // Share of the next layer's batches after the experts that are used now, the mean over these. Of
  // one that was seen a few times only, `otherwise` is the better guess.
  double FollowingShare(uint32_t expert, double otherwise) const {
    if (used_.empty()) {
      return otherwise;
    }
    double sum = 0;
    for (const uint32_t before : used_) {
      const UseFrequency& following = followers_[now_][before];
      const double batches = following.batches();
      sum += (following.Share(expert) * batches + otherwise * kDoubt) / (batches + kDoubt);
    }
    return sum / static_cast<double>(used_.size());
  }

  std::vector<UseFrequency> layers_;
  std::vector<std::vector<UseFrequency>> followers_;
  bool started_ = false;
  size_t now_ = 0;
  std::vector<uint32_t> used_;
};

}  // namespace

std::vector<std::string> CachePolicyNames() { return {"lru", "frequency", "predictive"}; }

absl::StatusOr<std::unique_ptr<CachePolicy>> MakeCachePolicy(absl::string_view name,
                                                             absl::Span<const uint32_t> experts) {
  if (name == "lru") {
    return std::make_unique<LruPolicy>(experts);
  }
  if (name == "frequency") {
    return std::make_unique<FrequencyPolicy>(experts);
  }
  if (name == "predictive") {
    return std::make_unique<PredictivePolicy>(experts);
  }
  return absl::InvalidArgumentError(absl::StrCat("no cache policy is called '", name, "'; use ",
                                                 absl::StrJoin(CachePolicyNames(), ", ")));
}

}  // namespace expertmesh::expert_cache
