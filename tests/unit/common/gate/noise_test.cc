#include "common/gate/noise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <tuple>
#include <vector>

namespace expertmesh::gate {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

class ConstantRandom final : public RandomSource {
 public:
  explicit ConstantRandom(float value) : value_(value) {}
  float Uniform(RandomUse, const RandomKey&, uint32_t) const override { return value_; }

 private:
  const float value_;
};

TEST(CounterRandom, NumbersAreUniformAndOfTheirOwn) {
  const RandomSource& random = CounterRandom();
  std::set<float> seen;
  double sum = 0;
  double squares = 0;
  double products = 0;  // Sum over neighbours in every direction.
  size_t count = 0;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    for (uint64_t token = 0; token < 64; ++token) {
      for (uint32_t index = 0; index < 64; ++index) {
        for (const RandomUse use : {RandomUse::kNoise, RandomUse::kNoiseAngle}) {
          const float u = random.Uniform(use, {seed, token}, index);
          ASSERT_GE(u, 0.0f);
          ASSERT_LT(u, 1.0f);
          EXPECT_EQ(u, random.Uniform(use, {seed, token}, index));
          seen.insert(u);
          const double centred = u - 0.5;
          sum += centred;
          squares += centred * centred;
          products += centred * (random.Uniform(use, {seed, token}, index + 1) - 0.5);
          products += centred * (random.Uniform(use, {seed, token + 1}, index) - 0.5);
          products += centred * (random.Uniform(use, {seed + 1, token}, index) - 0.5);
          ++count;
        }
      }
    }
  }
  const auto n = static_cast<double>(count);
  EXPECT_GT(seen.size(), count - 100) << "of 2^24 numbers about 32 pairs meet";
  EXPECT_NEAR(sum / n, 0.0, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(squares / n, 1.0 / 12, 0.001);
  EXPECT_NEAR(products / n, 0.0, 5 * std::sqrt(3.0 / 144 / n));
}

TEST(CounterRandom, SeedZeroTokenZeroIsNothingSpecial) {
  const float u = CounterRandom().Uniform(RandomUse::kNoise, {0, 0}, 0);
  EXPECT_GT(u, 0.0f);
  EXPECT_NE(u, CounterRandom().Uniform(RandomUse::kJitter, {0, 0}, 0));
}

TEST(Noise, GumbelIsFiniteWhateverTheNumber) {
  EXPECT_NEAR(Gumbel(ConstantRandom(0.5f), RandomUse::kNoise, {}, 0), 0.36651292, 1e-6);
  EXPECT_TRUE(std::isfinite(Gumbel(ConstantRandom(0.0f), RandomUse::kNoise, {}, 0)));
  EXPECT_TRUE(std::isfinite(Gumbel(ConstantRandom(1.0f), RandomUse::kNoise, {}, 0)));
}

TEST(Noise, NormalHasMeanZeroAndVarianceOne) {
  double sum = 0;
  double squares = 0;
  constexpr int kCount = 20000;
  for (uint32_t i = 0; i < kCount; ++i) {
    const double x = Normal(CounterRandom(), {9, i / 100}, i % 100);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kCount, 0.0, 0.03);
  EXPECT_NEAR(squares / kCount, 1.0, 0.05);
  EXPECT_EQ(Normal(ConstantRandom(0.0f), {}, 0), 0.0f);
}

TEST(Noise, ScalesAndWidths) {
  RoutingOptions options;
  options.noise_scale = 2.0f;
  const ConstantRandom half(0.5f);
  const float normal = Normal(half, {}, 0);
  const float gumbel = Gumbel(half, RandomUse::kNoise, {}, 0);
  const auto noisy = [&](Noise noise, const std::vector<float>& width) {
    options.noise = noise;
    std::vector<float> logits = {10.0f, -1.0f};
    AddNoise(options, half, {}, width, absl::MakeSpan(logits));
    return logits;
  };
  EXPECT_THAT(noisy(Noise::kNone, {}), ElementsAre(10.0f, -1.0f));
  EXPECT_THAT(noisy(Noise::kJitter, {}), ElementsAre(10.0f, -1.0f));
  EXPECT_THAT(noisy(Noise::kGumbel, {}), ElementsAre(10.0f + 2 * gumbel, -1.0f + 2 * gumbel));
  EXPECT_THAT(noisy(Noise::kNormal, {}), ElementsAre(10.0f + 2 * normal, -1.0f + 2 * normal));
  // softplus(0) = ln 2; softplus(100) = 100.
  EXPECT_THAT(noisy(Noise::kLearnedNormal, {0.0f, 100.0f}),
              ElementsAre(FloatNear(10.0f + 2.6931472f * normal, 1e-5f),
                          FloatNear(-1.0f + 102.0f * normal, 1e-3f)));
}

TEST(Noise, JitterStaysInItsBounds) {
  RoutingOptions options;
  options.noise_scale = 0.25f;
  std::vector<float> row = {4.0f, -4.0f};
  JitterRow(options, ConstantRandom(0.0f), {}, absl::MakeSpan(row));
  EXPECT_THAT(row, ElementsAre(3.0f, -3.0f));
  row = {4.0f};
  JitterRow(options, ConstantRandom(0.5f), {}, absl::MakeSpan(row));
  EXPECT_THAT(row, ElementsAre(4.0f));
  std::vector<float> ones(64, 1.0f);
  JitterRow(options, CounterRandom(), {1, 2}, absl::MakeSpan(ones));
  EXPECT_GT(std::set<float>(ones.begin(), ones.end()).size(), 60u) << "each element its own";
}

}  // namespace
}  // namespace expertmesh::gate
