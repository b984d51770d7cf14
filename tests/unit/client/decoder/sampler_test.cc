#include "client/cpp/decoder/sampler.h"

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "gtest/gtest.h"

namespace expertmesh::decoder {
namespace {

// Probabilities 0.5, 0.25, 0.15, 0.1 of tokens 2, 0, 3, 1.
const std::vector<float>& Logits() {
  static const std::vector<float> logits = {std::log(0.25f), std::log(0.1f), std::log(0.5f),
                                            std::log(0.15f)};
  return logits;
}

std::map<uint32_t, double> Frequencies(const SamplingOptions& options, int draws) {
  Sampler sampler(options);
  std::map<uint32_t, double> counts;
  for (int i = 0; i < draws; ++i) {
    counts[sampler.Next(Logits()).value()] += 1.0 / draws;
  }
  return counts;
}

TEST(SamplerTest, GreedyTakesTheLikeliestAndTheLowestOfEquals) {
  Sampler sampler({});
  EXPECT_EQ(sampler.Next(Logits()).value(), 2u);
  EXPECT_EQ(sampler.Next({1.0f, 3.0f, 3.0f}).value(), 1u);
}

TEST(SamplerTest, DrawsWithTheModelsProbabilities) {
  // 20,000 draws: a share of 0.5 has a standard deviation of 0.0035.
  const auto shares = Frequencies({.temperature = 1.0, .seed = 7}, 20000);
  EXPECT_NEAR(shares.at(2), 0.5, 0.015);
  EXPECT_NEAR(shares.at(0), 0.25, 0.015);
  EXPECT_NEAR(shares.at(3), 0.15, 0.015);
  EXPECT_NEAR(shares.at(1), 0.1, 0.015);
}

TEST(SamplerTest, TemperatureIsAnExponent) {
  // Probabilities squared: 0.25, 0.0625, 0.0225, 0.01, together 0.345.
  const auto shares = Frequencies({.temperature = 0.5, .seed = 7}, 20000);
  EXPECT_NEAR(shares.at(2), 0.25 / 0.345, 0.015);
  EXPECT_NEAR(shares.at(1), 0.01 / 0.345, 0.01);
}

TEST(SamplerTest, TopKKeepsTheLikeliest) {
  const auto shares = Frequencies({.temperature = 1.0, .top_k = 2, .seed = 7}, 20000);
  EXPECT_EQ(shares.size(), 2u);
  EXPECT_NEAR(shares.at(2), 2.0 / 3.0, 0.015);
  EXPECT_NEAR(shares.at(0), 1.0 / 3.0, 0.015);
}

TEST(SamplerTest, TopPKeepsTheFewestThatReachIt) {
  EXPECT_EQ(Frequencies({.temperature = 1.0, .top_p = 0.49, .seed = 7}, 1000).size(), 1u);
  EXPECT_EQ(Frequencies({.temperature = 1.0, .top_p = 0.74, .seed = 7}, 1000).size(), 2u);
  EXPECT_EQ(Frequencies({.temperature = 1.0, .top_p = 0.76, .seed = 7}, 1000).size(), 3u);
  // top_k leaves two tokens, with 2/3 and 1/3; the first alone reaches top_p.
  EXPECT_EQ(Frequencies({.temperature = 1.0, .top_k = 2, .top_p = 0.6, .seed = 7}, 1000).size(),
            1u);
}

TEST(SamplerTest, TheSeedDecides) {
  std::vector<std::vector<uint32_t>> texts;
  for (const uint64_t seed : {1, 1, 2}) {
    Sampler sampler({.temperature = 1.0, .seed = seed});
    std::vector<uint32_t>& text = texts.emplace_back();
    for (int i = 0; i < 50; ++i) {
      text.push_back(sampler.Next(Logits()).value());
    }
  }
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_NE(texts[0], texts[2]);
}

TEST(SamplerTest, RefusesLogitsThatAreNoNumbers) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Sampler sampler({});
    EXPECT_EQ(sampler.Next({0.0f, bad}).status().code(), absl::StatusCode::kInternal);
  }
}

TEST(SamplerTest, OptionsAreChecked) {
  EXPECT_TRUE(CheckSampling({}).ok());
  EXPECT_FALSE(CheckSampling({.temperature = -1.0}).ok());
  EXPECT_FALSE(CheckSampling({.top_p = 0.0}).ok());
  EXPECT_FALSE(CheckSampling({.top_p = 1.5}).ok());
}

}  // namespace
}  // namespace expertmesh::decoder
