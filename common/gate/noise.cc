#include "common/gate/noise.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "common/base/check.h"

namespace expertmesh::gate {
namespace {

// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit of the input moves every bit
// of the output.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class Counter final : public RandomSource {
 public:
  float Uniform(RandomUse use, const RandomKey& key, uint32_t index) const override {
    constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;
    uint64_t state = Mix(key.seed + kStep * (static_cast<uint64_t>(use) + 1));
    state = Mix(state + kStep * (key.token + 1));
    state = Mix(state + kStep * (uint64_t{index} + 1));
    return static_cast<float>(state >> 40) * 0x1p-24f;
  }
};

// ln(1 + e^x) without overflow.
double Softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }

}  // namespace

const RandomSource& CounterRandom() {
  static const Counter& counter = *new Counter();
  return counter;
}

// In double: float functions of the C library differ in the last bit between processors, and a
// request is to be routed the same on all of them.
float Gumbel(const RandomSource& random, RandomUse use, const RandomKey& key, uint32_t index) {
  const double u =
      std::clamp(static_cast<double>(random.Uniform(use, key, index)), 0x1p-126, 1.0 - 0x1p-24);
  return static_cast<float>(-std::log(-std::log(u)));
}

float Normal(const RandomSource& random, const RandomKey& key, uint32_t index) {
  const double radius = 1.0 - random.Uniform(RandomUse::kNoise, key, index);  // In (0, 1].
  const double angle = random.Uniform(RandomUse::kNoiseAngle, key, index);
  return static_cast<float>(std::sqrt(-2.0 * std::log(radius)) *
                            std::cos(2.0 * std::numbers::pi * angle));
}

void AddNoise(const RoutingOptions& options, const RandomSource& random, const RandomKey& key,
              absl::Span<const float> width, absl::Span<float> logits) {
  switch (options.noise) {
    case Noise::kNone:
    case Noise::kJitter:
      return;
    case Noise::kGumbel:
      for (uint32_t expert = 0; expert < logits.size(); ++expert) {
        logits[expert] += options.noise_scale * Gumbel(random, RandomUse::kNoise, key, expert);
      }
      return;
    case Noise::kNormal:
      for (uint32_t expert = 0; expert < logits.size(); ++expert) {
        logits[expert] += options.noise_scale * Normal(random, key, expert);
      }
      return;
    case Noise::kLearnedNormal:
      EXPERTMESH_CHECK(width.size() == logits.size());
      for (uint32_t expert = 0; expert < logits.size(); ++expert) {
        const auto deviation = static_cast<float>(Softplus(width[expert]) + options.noise_scale);
        logits[expert] += deviation * Normal(random, key, expert);
      }
      return;
  }
}

void JitterRow(const RoutingOptions& options, const RandomSource& random, const RandomKey& key,
               absl::Span<float> hidden_state) {
  for (uint32_t i = 0; i < hidden_state.size(); ++i) {
    const float u = random.Uniform(RandomUse::kJitter, key, i);
    hidden_state[i] *= 1.0f + options.noise_scale * (2.0f * u - 1.0f);
  }
}

}  // namespace expertmesh::gate
