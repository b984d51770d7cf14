#include "client/cpp/decoder/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace expertmesh::decoder {
absl::Status CheckSampling(const SamplingOptions& options) {
  if (!(options.temperature >= 0.0) || std::isinf(options.temperature)) {
    return absl::InvalidArgumentError(
        absl::StrCat("temperature is ", options.temperature, "; it must be a number from 0"));
  }
  if (!(options.top_p > 0.0 && options.top_p <= 1.0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("top-p is ", options.top_p, "; it must be above 0 and at most 1"));
  }
  return absl::OkStatus();
}

absl::Status CheckLogits(absl::Span<const float> logits) {
  for (const float logit : logits) {
    if (!std::isfinite(logit)) {
      return absl::InternalError(absl::StrCat("the model's logits are no numbers (", logit,
                                              "); its weights or the mesh are broken"));
    }
  }
  return absl::OkStatus();
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {}

void Sampler::Collect(absl::Span<const float> logits, float highest) {
  candidates_.clear();
  double total = 0.0;
  for (uint32_t token = 0; token < logits.size(); ++token) {
    const double above = static_cast<double>(logits[token]) - static_cast<double>(highest);
    const double probability = std::exp(above / options_.temperature);
    if (probability > 0.0) {
      candidates_.push_back({probability, token});
      total += probability;
    }
  }
  if (options_.top_k > 0 || options_.top_p == 1.0) {
    return;
  }
  // All of these together do not make up what top_p leaves out: none of them is needed to reach it,
  // and there is no need to sort them.
  const double least = (1.0 - options_.top_p) * total / static_cast<double>(logits.size());
  double dropped = 0.0;
  const auto unlikely = [&](const Candidate& candidate) {
    const bool drop = candidate.probability < least;
    dropped += drop ? candidate.probability : 0.0;
    return drop;
  };
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), unlikely),
                    candidates_.end());
  left_out_ = dropped;
}

void Sampler::Narrow() {
  // Likelier first, the lower token first among equals.
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.probability != b.probability ? a.probability > b.probability : a.token < b.token;
  };
  size_t kept = candidates_.size();
  if (options_.top_k > 0) {
    kept = std::min<size_t>(kept, options_.top_k);
  }
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(kept),
                    candidates_.end(), before);
  candidates_.resize(kept);
  double total = left_out_;
  for (const Candidate& candidate : candidates_) {
    total += candidate.probability;
  }
  double reached = 0.0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    reached += candidates_[i].probability;
    if (reached >= options_.top_p * total) {
      candidates_.resize(i + 1);
    }
  }
}

absl::StatusOr<uint32_t> Sampler::Next(absl::Span<const float> logits) {
  RETURN_IF_ERROR(CheckLogits(logits));
  const float* const best = std::max_element(logits.begin(), logits.end());
  if (options_.temperature == 0.0) {
    return static_cast<uint32_t>(best - logits.begin());
  }
  left_out_ = 0.0;
  Collect(logits, *best);
  if (options_.top_k > 0 || options_.top_p < 1.0) {
    Narrow();
  }
  double total = 0.0;
  for (const Candidate& candidate : candidates_) {
    total += candidate.probability;
  }
  // 53 random bits as a number below 1: the distributions of the standard differ between libraries.
  double left = static_cast<double>(random_() >> 11) * 0x1p-53 * total;
  for (const Candidate& candidate : candidates_) {
    left -= candidate.probability;
    if (left < 0.0) {
      return candidate.token;
    }
  }
  return candidates_.back().token;
}

}  // namespace expertmesh::decoder
