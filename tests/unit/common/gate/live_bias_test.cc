// A live bias in place of the checkpoint's: what it does to the choice, and how what it changed is
// counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <set>
#include <vector>

#include "common/gate/routing.h"
#include "tests/support/compare_rows.h"

namespace expertmesh::gate {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

RoutingOptions Options(uint32_t experts, uint32_t k) {
  RoutingOptions options;
  options.num_experts = experts;
  options.top_k = k;
  options.score = ScoreFunction::kSigmoid;
  return options;
}

RoutedTokens Route(const RoutingOptions& options, const std::vector<float>& logits,
                   const SelectBias& bias, std::vector<RequestTokens> requests = {}) {
  EXPECT_TRUE(ValidateRouting(options).ok()) << ValidateRouting(options);
  if (requests.empty()) {
    requests.push_back({logits.size() / options.num_experts});
  }
  RoutingScratch scratch;
  RoutedTokens routed;
  RoutingRules rules;
  rules.options = options;
  RouteTokens(rules, {requests, logits, bias}, &scratch, &routed);
  return routed;
}

std::vector<float> Normal(size_t count, uint32_t seed, float deviation) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) {
    value = normal(random);
  }
  return values;
}

std::vector<std::set<uint32_t>> Sets(const RoutedTokens& routed) {
  std::vector<std::set<uint32_t>> sets;
  for (size_t token = 0; token < routed.tokens(); ++token) {
    sets.emplace_back(routed.expert_ids.begin() + routed.token_begin[token],
                      routed.expert_ids.begin() + routed.token_begin[token + 1]);
  }
  return sets;
}

TEST(LiveBias, MovesTheChoiceOfAModelWithoutABiasAndNeverTheWeight) {
  const std::vector<float> logits = {2, 1, 0, -1};
  const std::vector<float> live = {0, 0, 0, 5};
  const RoutedTokens routed = Route(Options(4, 2), logits, {.live = live});
  EXPECT_THAT(routed.expert_ids, ElementsAre(3, 0));
  EXPECT_THAT(routed.weights,
              ElementsAre(FloatNear(0.26894142f, 1e-6f), FloatNear(0.88079708f, 1e-6f)));
  EXPECT_EQ(routed.compared, 1u);
  EXPECT_EQ(routed.changed, 1u);
}

TEST(LiveBias, StandsInForTheCheckpointsAndIsNotAddedToIt) {
  RoutingOptions options = Options(3, 1);
  options.select_bias = true;
  const std::vector<float> checkpoint = {0, 9, 0};
  const std::vector<float> live = {0, 0, 5};
  const RoutedTokens routed = Route(options, {0, 0, 0}, {checkpoint, live});
  EXPECT_THAT(routed.expert_ids, ElementsAre(2));
  EXPECT_EQ(routed.changed, 1u);
}

TEST(LiveBias, APinnedRequestIsChosenForByTheCheckpointAlone) {
  RoutingOptions options = Options(3, 1);
  options.select_bias = true;
  const std::vector<float> checkpoint = {0, 9, 0};
  const std::vector<float> live = {0, 0, 5};
  RequestTokens pinned{1};
  pinned.checkpoint_bias = true;
  const RoutedTokens routed =
      Route(options, {0, 0, 0, 0, 0, 0}, {checkpoint, live}, {pinned, RequestTokens{1}});
  EXPECT_THAT(routed.expert_ids, ElementsAre(1, 2));
  EXPECT_EQ(routed.compared, 1u) << "the pinned one is not compared";
}

TEST(LiveBias, OrderAndTiesThatLeaveTheSetAreNoChange) {
  const std::vector<float> live = {0, .5f, 0, 0};
  // Expert 1 overtakes expert 0, and both stay chosen.
  EXPECT_EQ(Route(Options(4, 2), {2, 1, -3, -4}, {.live = live}).changed, 0u);
  // All equal: the lowest indices are the checkpoint's choice.
  const std::vector<float> even(4, 1.0f);
  EXPECT_EQ(Route(Options(4, 2), {1, 1, 1, 1}, {.live = even}).changed, 0u);
  const std::vector<float> last = {0, 0, 0, 1e-3f};
  EXPECT_EQ(Route(Options(4, 2), {1, 1, 1, 1}, {.live = last}).changed, 1u);
}

TEST(LiveBias, WhatIsOutsideTheGroupsIsNeverChosen) {
  RoutingOptions options = Options(4, 2);
  options.score = ScoreFunction::kSoftmax;
  options.n_group = 2;
  options.topk_group = 1;
  options.masked_choice = 0;  // DeepSeek-V2's: above what a negative bias leaves of a score.
  const std::vector<float> live = {-2, -2, -3, -3};
  const RoutedTokens routed = Route(options, {3, 2, 1, 0}, {.live = live});
  EXPECT_THAT(routed.expert_ids, ElementsAre(0, 1));
  EXPECT_THAT(routed.weights,
              ElementsAre(FloatNear(0.6439142f, 1e-6f), FloatNear(0.2368828f, 1e-6f)));
  EXPECT_EQ(routed.changed, 0u);
}

// The count against two routings of their own, over many kinds of routing.
TEST(LiveBias, ChangedTokensAreThoseWhoseSetDiffersFromTheCheckpointsRouting) {
  std::vector<RoutingOptions> points = {Options(64, 6), Options(256, 8), Options(8, 2)};
  points[1].select_bias = true;
  points[1].n_group = 8;
  points[1].topk_group = 4;
  points[1].group_score = GroupScore::kTopTwoSum;
  points[1].masked_choice = -std::numeric_limits<float>::infinity();
  points[2].score = ScoreFunction::kSoftmax;
  points[2].scope = ScoreScope::kSelected;
  points.push_back(Options(32, 4));
  points.back().score = ScoreFunction::kSoftmax;
  points.back().n_group = 4;
  points.back().topk_group = 2;
  for (const RoutingOptions& options : points) {
    const size_t experts = options.num_experts;
    const std::vector<float> logits = Normal(experts * 500, 3, 1.0f);
    const std::vector<float> checkpoint =
        options.select_bias ? Normal(experts, 4, 0.01f) : std::vector<float>();
    std::vector<float> live =
        Normal(experts, 5, options.scope == ScoreScope::kSelected ? .05f : .001f);
    for (size_t expert = 0; expert < checkpoint.size(); ++expert) {
      live[expert] += checkpoint[expert];
    }
    const RoutedTokens with = Route(options, logits, {checkpoint, live});
    const RoutedTokens without = Route(options, logits, {checkpoint});
    const auto before = Sets(without);
    const auto after = Sets(with);
    uint64_t changed = 0;
    for (size_t token = 0; token < before.size(); ++token) {
      changed += before[token] != after[token] ? 1 : 0;
    }
    EXPECT_EQ(with.compared, 500u);
    EXPECT_EQ(with.changed, changed);
    EXPECT_GT(changed, 0u);
    EXPECT_LT(changed, 500u);
    EXPECT_EQ(without.compared, 0u);
  }
}

TEST(LiveBias, EqualToTheCheckpointsItChangesNoBit) {
  RoutingOptions options = Options(64, 6);
  options.select_bias = true;
  const std::vector<float> logits = Normal(64 * 100, 6, 1.0f);
  const std::vector<float> checkpoint = Normal(64, 7, 0.1f);
  const RoutedTokens with = Route(options, logits, {checkpoint, checkpoint});
  const RoutedTokens without = Route(options, logits, {checkpoint});
  EXPECT_EQ(with.expert_ids, without.expert_ids);
  EXPECT_TRUE(SameBits(with.weights, without.weights, 6));
  EXPECT_EQ(with.changed, 0u);
}

}  // namespace
}  // namespace expertmesh::gate
