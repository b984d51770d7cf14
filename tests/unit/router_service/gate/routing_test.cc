#include "router_service/gate/routing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace expertmesh {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Routed {
  std::vector<uint32_t> ids;
  std::vector<float> weights;
};

// One request of as many tokens as there are logits for.
RoutedTokens RouteAll(const RoutingRules& rules, RoutingInput input) {
  EXPECT_TRUE(ValidateRouting(rules.options).ok()) << ValidateRouting(rules.options);
  const RequestTokens request{input.logits.size() / rules.options.num_experts};
  if (input.requests.empty()) {
    input.requests = {&request, 1};
  }
  RoutingScratch scratch;
  RoutedTokens routed;
  RouteTokens(rules, input, &scratch, &routed);
  return routed;
}

Routed Route(const RoutingOptions& options, const std::vector<float>& logits,
             const std::vector<float>& bias = {}, DType model = DType::kF32,
             TieOrder ties = TieOrder::kLowestIndex) {
  RoutedTokens routed = RouteAll({options, ties, model}, {{}, logits, bias});
  for (size_t token = 0; token <= routed.tokens(); ++token) {
    EXPECT_EQ(routed.token_begin[token], token * options.top_k);
  }
  EXPECT_TRUE(routed.dropped.empty());
  return {std::move(routed.expert_ids), std::move(routed.weights)};
}

RoutingOptions Options(uint32_t experts, uint32_t k) {
  RoutingOptions options;
  options.num_experts = experts;
  options.top_k = k;
  return options;
}

RoutingOptions DeepSeekV3(uint32_t experts, uint32_t k, uint32_t n_group, uint32_t topk_group) {
  RoutingOptions options = Options(experts, k);
  options.score = ScoreFunction::kSigmoid;
  options.select_bias = true;
  options.n_group = n_group;
  options.topk_group = topk_group;
  options.group_score = GroupScore::kTopTwoSum;
  options.masked_choice = -kInfinity;
  options.renormalise = Renormalise::kSum;
  options.renormalise_epsilon = 1e-20f;
  options.scale = 2.5f;
  options.sorted_selection = false;
  return options;
}

std::vector<float> RandomLogits(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  std::vector<float> logits(count);
  for (float& logit : logits) {
    logit = normal(random);
  }
  return logits;
}

// Points all over the space of options.
std::vector<RoutingOptions> ManyPoints() {
  std::vector<RoutingOptions> points = {
      Options(8, 2),   Options(128, 8),          Options(1, 1),          Options(5, 5),
      Options(40, 20), DeepSeekV3(256, 8, 8, 4), DeepSeekV3(8, 2, 4, 2), DeepSeekV3(16, 4, 1, 1)};
  points[0].renormalise = Renormalise::kSum;
  points[1].scope = ScoreScope::kSelected;
  points.push_back(Options(160, 6));
  points.back().n_group = 8;
  points.back().topk_group = 3;
  points.back().scale = 16.0f;
  points.push_back(Options(12, 12));
  points.back().n_group = 3;
  points.back().topk_group = 3;
  points.push_back(Options(12, 3));
  points.back().score = ScoreFunction::kIdentity;
  return points;
}

TEST(Routing, ChoosesDistinctExpertsWhateverTheLogits) {
  for (const RoutingOptions& options : ManyPoints()) {
    for (const TieOrder ties : {TieOrder::kLowestIndex, TieOrder::kTorchCpu}) {
      const size_t experts = options.num_experts;
      std::vector<float> logits = RandomLogits(experts * 40, 3);
      std::mt19937 random(4);
      for (size_t token = 0; token < 30; ++token) {  // The last ten stay as they are.
        float* row = logits.data() + token * experts;
        const float odd[] = {kNan, kInfinity, -kInfinity, 3e38f, 0.0f};
        if (token < 5) {
          std::fill_n(row, experts, odd[token]);
        } else {
          row[random() % experts] = odd[random() % 5];
          row[random() % experts] = odd[random() % 5];
        }
      }
      const std::vector<float> bias(options.select_bias ? experts : 0, 0.1f);
      const Routed routed = Route(options, logits, bias, DType::kF32, ties);
      for (size_t token = 0; token < 40; ++token) {
        const auto begin = routed.ids.begin() + static_cast<ptrdiff_t>(token * options.top_k);
        const std::set<uint32_t> distinct(begin, begin + options.top_k);
        EXPECT_EQ(distinct.size(), options.top_k) << "token " << token;
        EXPECT_LT(*distinct.rbegin(), experts);
      }
    }
  }
}

TEST(Routing, ATokenDoesNotDependOnItsBatch) {
  for (const RoutingOptions& options : ManyPoints()) {
    const size_t experts = options.num_experts;
    const std::vector<float> bias(options.select_bias ? experts : 0, 0.1f);
    std::vector<float> logits = RandomLogits(experts * 9, 5);
    logits[experts * 3] = kNan;
    const Routed together = Route(options, logits, bias);
    for (size_t token = 0; token < 9; ++token) {
      const auto begin = logits.begin() + static_cast<ptrdiff_t>(token * experts);
      const Routed alone = Route(options, {begin, begin + static_cast<ptrdiff_t>(experts)}, bias);
      for (size_t slot = 0; slot < options.top_k; ++slot) {
        EXPECT_EQ(alone.ids[slot], together.ids[token * options.top_k + slot]);
        EXPECT_EQ(std::bit_cast<uint32_t>(alone.weights[slot]),
                  std::bit_cast<uint32_t>(together.weights[token * options.top_k + slot]));
      }
    }
  }
}

TEST(Routing, RenormalisedWeightsSumToTheScale) {
  RoutingOptions options = Options(64, 6);
  options.renormalise = Renormalise::kSum;
  options.scale = 2.5f;
  const Routed routed = Route(options, RandomLogits(64 * 50, 6));
  for (size_t token = 0; token < 50; ++token) {
    const auto begin = routed.weights.begin() + static_cast<ptrdiff_t>(token * 6);
    EXPECT_NEAR(std::accumulate(begin, begin + 6, 0.0f), 2.5f, 1e-5f);
    EXPECT_TRUE(std::is_sorted(begin, begin + 6, std::greater<>()));
  }
}

TEST(Routing, SoftmaxDoesNotSeeAConstantAdded) {
  std::vector<float> logits = RandomLogits(128 * 30, 7);
  for (float& logit : logits) {
    logit = std::round(logit * 256.0f) / 256.0f;  // So that the sums below are exact.
  }
  const Routed before = Route(Options(128, 8), logits);
  for (float& logit : logits) {
    logit += 32.0f;
  }
  const Routed after = Route(Options(128, 8), logits);
  EXPECT_EQ(before.ids, after.ids);
  EXPECT_EQ(before.weights, after.weights);
}

TEST(Routing, BiasMovesTheChoiceAndNeverTheWeight) {
  RoutingOptions options = Options(4, 2);
  options.score = ScoreFunction::kSigmoid;
  const std::vector<float> logits = {2.0f, 1.0f, 0.0f, -1.0f};
  options.select_bias = true;
  const Routed pushed = Route(options, logits, {0.0f, 0.0f, 0.0f, 5.0f});
  EXPECT_THAT(pushed.ids, ElementsAre(3, 0));
  EXPECT_THAT(pushed.weights,
              ElementsAre(FloatNear(0.26894142f, 1e-6f), FloatNear(0.88079708f, 1e-6f)));
  options.select_bias = false;  // The same bias is not looked at.
  EXPECT_THAT(Route(options, logits, {0.0f, 0.0f, 0.0f, 5.0f}).ids, ElementsAre(0, 1));
}

TEST(Routing, ScoreFunctionsDiffer) {
  const std::vector<float> logits = {0.0f, 1.0f, -2.0f};
  RoutingOptions options = Options(3, 1);
  options.score = ScoreFunction::kIdentity;
  EXPECT_THAT(Route(options, logits).weights, ElementsAre(1.0f));
  options.score = ScoreFunction::kSigmoid;
  EXPECT_THAT(Route(options, logits).weights, ElementsAre(FloatNear(0.7310586f, 1e-6f)));
  options.score = ScoreFunction::kSoftmax;
  EXPECT_THAT(Route(options, logits).weights, ElementsAre(FloatNear(0.7053845f, 1e-6f)));
  options.scope = ScoreScope::kSelected;
  EXPECT_THAT(Route(options, logits).weights, ElementsAre(1.0f));
}

TEST(Routing, SelectedScopeChoosesByLogitPlusBias) {
  RoutingOptions options = Options(3, 1);
  options.scope = ScoreScope::kSelected;
  options.score = ScoreFunction::kSigmoid;
  options.select_bias = true;
  // Of the sigmoids with bias (.98, .5 + .3, ...) expert 0 would be best; of the logits, too,
  // unless the bias counts in logits: 4 against 0 + 4.5.
  const Routed routed = Route(options, {4.0f, 0.0f, -9.0f}, {0.0f, 4.5f, 0.0f});
  EXPECT_THAT(routed.ids, ElementsAre(1));
  EXPECT_THAT(routed.weights, ElementsAre(0.5f));
}

TEST(Routing, GroupScoresDiffer) {
  // Group 0 has the best expert, group 1 the best pair.
  const std::vector<float> logits = {3.0f, -3.0f, 2.0f, 2.0f};
  RoutingOptions options = Options(4, 2);
  options.score = ScoreFunction::kIdentity;
  options.n_group = 2;
  options.topk_group = 1;
  options.masked_choice = -kInfinity;
  EXPECT_THAT(Route(options, logits).ids, ElementsAre(0, 1));
  options.group_score = GroupScore::kTopTwoSum;
  EXPECT_THAT(Route(options, logits).ids, ElementsAre(2, 3));
  options.topk_group = 2;  // No limit at all.
  EXPECT_THAT(Route(options, logits).ids, ElementsAre(0, 2));
}

TEST(Routing, MaskByZeroLetsMaskedExpertsWinMinusInfinityDoesNot) {
  RoutingOptions options = DeepSeekV3(8, 3, 2, 1);
  const std::vector<float> logits = {0, 0, 0, 0, 1, 1, 1, 1};
  const std::vector<float> bias(8, -2.0f);  // Every biased score is below 0.
  EXPECT_THAT(Route(options, logits, bias).ids, ElementsAre(4, 5, 6));
  options.masked_choice = 0.0f;
  const Routed leaked = Route(options, logits, bias);
  EXPECT_THAT(leaked.ids, ElementsAre(0, 1, 2));
  EXPECT_THAT(leaked.weights[0], FloatNear(2.5f / 3.0f, 1e-6f));  // Its own score, not the mask.
}

// DeepSeek-V2 takes weights from the masked scores: an expert of a masked group that is chosen
// because everything left is 0 as well weighs nothing.
TEST(Routing, WithoutBiasAMaskedExpertWeighsWhatTheMaskSays) {
  RoutingOptions options = Options(4, 2);
  options.n_group = 2;
  options.topk_group = 1;
  const Routed routed = Route(options, {9.0f, 9.0f, 10.0f, -300.0f});
  EXPECT_THAT(routed.ids, ElementsAre(2, 0));
  EXPECT_EQ(routed.weights[1], 0.0f);
}

TEST(Routing, GroupTiesGoToTheLowerGroupAndNanGroupsFirst) {
  RoutingOptions options = Options(6, 2);
  options.score = ScoreFunction::kIdentity;
  options.n_group = 3;
  options.topk_group = 1;
  options.masked_choice = -kInfinity;
  for (const GroupScore score : {GroupScore::kMax, GroupScore::kTopTwoSum}) {
    options.group_score = score;
    EXPECT_THAT(Route(options, {1, 1, 1, 1, 1, 1}).ids, ElementsAre(0, 1));
    EXPECT_THAT(Route(options, {1, 1, 0, 0, -2, kNan}).ids, ElementsAre(5, 4));
    EXPECT_THAT(Route(options, {1, 1, kNan, -2, 2, 2}).ids, ElementsAre(2, 3));
  }
}

TEST(Routing, GroupsOfOne) {
  RoutingOptions options = Options(4, 2);
  options.n_group = 4;
  options.topk_group = 2;
  EXPECT_THAT(Route(options, {1, 4, 2, 3}).ids, ElementsAre(1, 3));
}

TEST(Routing, EpsilonAndScaleAndOrderOfSteps) {
  RoutingOptions options = Options(2, 2);
  options.score = ScoreFunction::kIdentity;
  options.renormalise = Renormalise::kSum;
  options.renormalise_epsilon = 4.0f;
  options.scale = 10.0f;
  EXPECT_THAT(Route(options, {3.0f, 1.0f}).weights, ElementsAre(3.75f, 1.25f));
  options.renormalise = Renormalise::kNone;
  EXPECT_THAT(Route(options, {3.0f, 1.0f}).weights, ElementsAre(30.0f, 10.0f));
}

TEST(Routing, WeightsAreRoundedToTheModelOnlyWhereTheFamilyDoes) {
  RoutingOptions options = Options(1, 1);
  options.score = ScoreFunction::kIdentity;
  const float value = 1.0f + 0x1p-9f + 0x1p-20f;  // Rounds up to the next bfloat16.
  options.weight_dtype = WeightDType::kF32;
  EXPECT_EQ(Route(options, {value}, {}, DType::kBF16).weights[0], value);
  options.weight_dtype = WeightDType::kModel;
  EXPECT_EQ(Route(options, {value}, {}, DType::kF32).weights[0], value);
  EXPECT_EQ(Route(options, {1.0f + 0x1p-8f + 0x1p-20f}, {}, DType::kBF16).weights[0],
            1.0f + 0x1p-7f);
  EXPECT_EQ(Route(options, {value}, {}, DType::kF16).weights[0], 1.0f + 0x1p-9f);
}

TEST(Routing, TiesByLowestIndexOrAsTorch) {
  RoutingOptions options = Options(128, 8);
  const std::vector<float> logits(128, 1.0f);
  EXPECT_THAT(Route(options, logits).ids, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  const Routed sorted = Route(options, logits, {}, DType::kF32, TieOrder::kTorchCpu);
  EXPECT_NE(sorted.ids, Route(options, logits).ids);
}

TEST(Routing, TorchOrderFollowsTheFamilysSortedFlag) {
  RoutingOptions options = Options(64, 6);
  const std::vector<float> logits = RandomLogits(64, 8);
  const Routed sorted = Route(options, logits, {}, DType::kF32, TieOrder::kTorchCpu);
  EXPECT_EQ(sorted.ids, Route(options, logits).ids);
  options.sorted_selection = false;
  const Routed unsorted = Route(options, logits, {}, DType::kF32, TieOrder::kTorchCpu);
  EXPECT_NE(unsorted.ids, sorted.ids);
  EXPECT_EQ(std::set<uint32_t>(unsorted.ids.begin(), unsorted.ids.end()),
            std::set<uint32_t>(sorted.ids.begin(), sorted.ids.end()));
  EXPECT_EQ(Route(options, logits).ids, sorted.ids) << "lowest index is always best first";
}

TEST(Routing, NanTokensGoToTheLowestExpertsWithNanAsWeight) {
  const Routed routed = Route(Options(128, 8), std::vector<float>(128, kNan));
  EXPECT_THAT(routed.ids, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_TRUE(std::isnan(routed.weights[0]));
}

TEST(Routing, NoTokensIsNoWork) { EXPECT_TRUE(Route(Options(8, 2), {}).ids.empty()); }

}  // namespace
}  // namespace expertmesh
