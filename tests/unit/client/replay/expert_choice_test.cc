#include "client/cpp/replay/expert_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

namespace expertmesh::replay {
namespace {

std::vector<double> Zipf(uint32_t experts, double exponent) {
  std::vector<double> weights;
  for (uint32_t i = 0; i < experts; ++i) {
    weights.push_back(-exponent * std::log(i + 1.0));
  }
  return weights;
}

// Tokens that are drawn one by one, as expert_choice.h says they choose.
struct Drawn {
  std::vector<double> chance;
  double changed = 0;
};

std::set<uint32_t> Best(const std::vector<double>& scores, uint32_t top_k) {
  std::vector<uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + top_k, order.end(),
                    [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
  return {order.begin(), order.begin() + top_k};
}

Drawn Draw(const std::vector<double>& log_weights, const std::vector<double>& bias, uint32_t top_k,
           int tokens) {
  std::mt19937_64 random(1);
  std::extreme_value_distribution<double> gumbel;
  Drawn drawn;
  drawn.chance.resize(log_weights.size());
  for (int token = 0; token < tokens; ++token) {
    std::vector<double> scores = log_weights;
    for (double& score : scores) {
      score += gumbel(random);
    }
    const std::set<uint32_t> before = Best(scores, top_k);
    for (size_t i = 0; i < scores.size(); ++i) {
      scores[i] += bias[i];
    }
    drawn.changed += before != Best(scores, top_k) ? 1.0 / tokens : 0;
    for (const uint32_t expert : before) {
      drawn.chance[expert] += 1.0 / tokens;
    }
  }
  return drawn;
}

class ExpertChoiceTest : public ::testing::TestWithParam<std::tuple<uint32_t, uint32_t, double>> {};

TEST_P(ExpertChoiceTest, IsWhatDrawnTokensDo) {
  const auto [experts, top_k, size] = GetParam();
  const std::vector<double> weights = Zipf(experts, 1);
  std::mt19937_64 random(2);
  std::normal_distribution<double> normal(0, size);
  std::vector<double> bias;
  std::vector<double> biased = weights;
  for (double& weight : biased) {
    bias.push_back(normal(random));
    weight += bias.back();
  }
  ExpertChoice without;
  ExpertChoice with;
  Choose(weights, top_k, &without);
  Choose(biased, top_k, &with);
  const Drawn drawn = Draw(weights, bias, top_k, 20'000);
  for (uint32_t i = 0; i < experts; ++i) {
    EXPECT_NEAR(without.chance[i], drawn.chance[i], .04) << i;
  }
  EXPECT_NEAR(ChangedShare(without, with, bias), drawn.changed, .1 * drawn.changed + .004);
}

INSTANTIATE_TEST_SUITE_P(Layers, ExpertChoiceTest,
                         ::testing::Values(std::tuple(64u, 6u, .03), std::tuple(64u, 6u, .2),
                                           std::tuple(128u, 1u, .2), std::tuple(32u, 8u, .05)));

TEST(ChooseTest, ChancesAddUpToTopK) {
  ExpertChoice choice;
  for (const uint32_t top_k : {1u, 3u, 7u}) {
    Choose(Zipf(8, 3), top_k, &choice);
    EXPECT_NEAR(std::accumulate(choice.chance.begin(), choice.chance.end(), 0.0), top_k, 1e-6);
    EXPECT_LE(choice.chance[0], 1);
  }
  Choose(Zipf(8, 3), 8, &choice);
  EXPECT_EQ(choice.chance, std::vector<double>(8, 1));
  Choose(std::vector<double>(4, -1e3), 1, &choice);
  EXPECT_NEAR(choice.chance[2], .25, 1e-6);
}

TEST(ChangedShareTest, NoBiasAndTheSameBiasForAllChangeNothing) {
  ExpertChoice choice;
  Choose(Zipf(8, 1), 2, &choice);
  EXPECT_EQ(ChangedShare(choice, choice, std::vector<double>(8, 0)), 0);
  EXPECT_NEAR(ChangedShare(choice, choice, std::vector<double>(8, .7)), 0, 1e-12);
}

TEST(BatchViolationTest, IsThatOfTheCountsThatChanceMakes) {
  // 100 tokens of top-1: 50 and 50 are expected, with a deviation of 5.
  EXPECT_DOUBLE_EQ(BatchViolation({{.5, .5}}, {{0, 0}}, 100), 0);
  EXPECT_DOUBLE_EQ(BatchViolation({{.5, .5}}, {{2, -2}}, 100), .2);
  EXPECT_EQ(BatchViolation({{.5, .5}}, {{2, -2}}, 0), 0);
}

}  // namespace
}  // namespace expertmesh::replay
