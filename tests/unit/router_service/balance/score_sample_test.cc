#include "router_service/balance/score_sample.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace expertmesh::balance_control {
namespace {

constexpr uint32_t kExperts = 3;

RoutingOptions Routing(uint32_t top_k) {
  RoutingOptions routing;
  routing.num_experts = kExperts;
  routing.top_k = top_k;
  return routing;
}

// One token, whose scores are 1/8, 5/8 and 2/8.
const std::vector<float> kLogits = {0, std::log(5.0f), std::log(2.0f)};

gate::RoutedTokens Routed(const std::vector<uint32_t>& experts, const std::vector<float>& weights) {
  gate::RoutedTokens routed;
  routed.token_begin = {0, static_cast<uint32_t>(experts.size())};
  routed.expert_ids = experts;
  routed.weights = weights;
  return routed;
}

TEST(ScoreSampleTest, EveryMeasureIsOfWhatWasSampled) {
  ScoreSample sample(Routing(2));
  sample.Add(kLogits, Routed({1, 2}, {.75f, .25f}));
  v1::LayerMeasures measures;
  sample.Take(&measures);
  EXPECT_EQ(measures.sampled_tokens(), 1u);
  EXPECT_NEAR(measures.switch_loss(), 3 * (5 + 2) / 8.0, 1e-5);
  EXPECT_NEAR(measures.megatron_loss(), 3 * (5 + 2) / 8.0 / 2, 1e-5);
  EXPECT_NEAR(measures.sequence_loss(), 3 * (5 + 2) / 8.0 / 2 * 1e-4, 1e-9);
  EXPECT_NEAR(measures.gshard_loss(), 5 / 8.0 / 3, 1e-5);
  // The second has 2 of the 3 eighths that the first leaves.
  EXPECT_NEAR(measures.second_place_loss(), 3 * 2 / 3.0, 1e-5);
  // Weights of 0, 3/4 and 1/4: mean 1/3, variance 7/72.
  EXPECT_NEAR(measures.importance_loss(), 7 / 72.0 * 9, 1e-5);
  EXPECT_NEAR(measures.z_loss(), std::log(8) * std::log(8), 1e-4);
}

TEST(ScoreSampleTest, WhatIsTakenIsNotTakenAgain) {
  ScoreSample sample(Routing(2));
  sample.Add(kLogits, Routed({1, 2}, {.75f, .25f}));
  v1::LayerMeasures first;
  sample.Take(&first);
  v1::LayerMeasures nothing;
  nothing.set_second_place_loss(7);
  sample.Take(&nothing);
  EXPECT_EQ(nothing.sampled_tokens(), 0u);
  EXPECT_EQ(nothing.second_place_loss(), 7) << "left as it was";
  sample.Add(kLogits, Routed({1, 0}, {.75f, .25f}));
  v1::LayerMeasures second;
  sample.Take(&second);
  EXPECT_NEAR(second.second_place_loss(), 3 * 1 / 3.0, 1e-5);
}

TEST(ScoreSampleTest, WithOneExpertForATokenThereIsNoSecondPlace) {
  ScoreSample sample(Routing(1));
  sample.Add(kLogits, Routed({1}, {1}));
  v1::LayerMeasures measures;
  sample.Take(&measures);
  EXPECT_EQ(measures.sampled_tokens(), 1u);
  EXPECT_EQ(measures.second_place_loss(), 1);
}

}  // namespace
}  // namespace expertmesh::balance_control
