#include "common/gate/routing.h"

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

#include "tests/support/compare_rows.h"
#include "tests/support/random_values.h"

namespace expertmesh::gate {
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
             const std::vector<float>& bias = {}, Dtype model = Dtype::kF32,
             TieOrder ties = TieOrder::kLowestIndex) {
  RoutedTokens routed = RouteAll({options, ties, model}, {{}, logits, {.checkpoint = bias}});
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
  points.push_back(Options(16, 2));
  points.back().choice = Choice::kSparseMixer;
  points.back().sparse_mixer_epsilon = 0.1f;
  points.push_back(Options(16, 4));
  points.back().scope = ScoreScope::kSelected;
  points.back().score_dtype = ScoreDtype::kModel;
  points.push_back(Options(9, 3));
  points.back().score = ScoreFunction::kSqrtSoftplus;
  points.back().renormalise = Renormalise::kLp;
  points.back().renormalise_p = 2.0f;
  points.back().temperature = 3.0f;
  points.push_back(Options(9, 3));
  points.back().second_expert = SecondExpert::kSampled;
  points.back().noise = Noise::kNormal;
  return points;
}

TEST(Routing, ChoosesDistinctExpertsWhateverTheLogits) {
  for (const RoutingOptions& options : ManyPoints()) {
    for (const TieOrder ties : {TieOrder::kLowestIndex, TieOrder::kTorchCpu}) {
      const size_t experts = options.num_experts;
      std::vector<float> logits = NormalValues(experts * 40, 3, 2.0f);
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
      const Routed routed = Route(options, logits, bias, Dtype::kF32, ties);
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
    if (options.noise != Noise::kNone || options.second_expert != SecondExpert::kAlways) {
      continue;  // Its place in the request decides, too.
    }
    const size_t experts = options.num_experts;
    const std::vector<float> bias(options.select_bias ? experts : 0, 0.1f);
    std::vector<float> logits = NormalValues(experts * 9, 5, 2.0f);
    logits[experts * 3] = kNan;
    const Routed together = Route(options, logits, bias);
    for (size_t token = 0; token < 9; ++token) {
      const auto begin = logits.begin() + static_cast<ptrdiff_t>(token * experts);
      const Routed alone = Route(options, {begin, begin + static_cast<ptrdiff_t>(experts)}, bias);
      const size_t k = options.top_k;
      const size_t first = token * k;
      ASSERT_TRUE(SameRows(alone.ids, absl::MakeConstSpan(together.ids).subspan(first, k), k));
      ASSERT_TRUE(
          SameBits(alone.weights, absl::MakeConstSpan(together.weights).subspan(first, k), k));
    }
  }
}

TEST(Routing, RenormalisedWeightsSumToTheScale) {
  RoutingOptions options = Options(64, 6);
  options.renormalise = Renormalise::kSum;
  options.scale = 2.5f;
  const Routed routed = Route(options, NormalValues(64 * 50, 6, 2.0f));
  for (size_t token = 0; token < 50; ++token) {
    const auto begin = routed.weights.begin() + static_cast<ptrdiff_t>(token * 6);
    EXPECT_NEAR(std::accumulate(begin, begin + 6, 0.0f), 2.5f, 1e-5f);
    EXPECT_TRUE(std::is_sorted(begin, begin + 6, std::greater<>()));
  }
}

TEST(Routing, SoftmaxDoesNotSeeAConstantAdded) {
  std::vector<float> logits = NormalValues(128 * 30, 7, 2.0f);
  for (float& logit : logits) {
    logit = std::round(logit * 256.0f) / 256.0f;  // So that the sums below are exact.
  }
  const Routed before = Route(Options(128, 8), logits);
  for (float& logit : logits) {
    logit += 32.0f;
  }
  const Routed after = Route(Options(128, 8), logits);
  EXPECT_TRUE(SameRows(after.ids, before.ids, 8));
  EXPECT_TRUE(SameRows(after.weights, before.weights, 8));
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
  // Expert 0 has the largest logit. Expert 1 wins only because the bias is added to the logits: 4
  // against 0 + 4.5.
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
  options.weight_dtype = WeightDtype::kF32;
  EXPECT_EQ(Route(options, {value}, {}, Dtype::kBF16).weights[0], value);
  options.weight_dtype = WeightDtype::kModel;
  EXPECT_EQ(Route(options, {value}, {}, Dtype::kF32).weights[0], value);
  EXPECT_EQ(Route(options, {1.0f + 0x1p-8f + 0x1p-20f}, {}, Dtype::kBF16).weights[0],
            1.0f + 0x1p-7f);
  EXPECT_EQ(Route(options, {value}, {}, Dtype::kF16).weights[0], 1.0f + 0x1p-9f);
}

TEST(Routing, TiesByLowestIndexOrAsTorch) {
  RoutingOptions options = Options(128, 8);
  const std::vector<float> logits(128, 1.0f);
  EXPECT_THAT(Route(options, logits).ids, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  const Routed sorted = Route(options, logits, {}, Dtype::kF32, TieOrder::kTorchCpu);
  EXPECT_NE(sorted.ids, Route(options, logits).ids);
}

TEST(Routing, TorchOrderFollowsTheFamilysSortedFlag) {
  RoutingOptions options = Options(64, 6);
  const std::vector<float> logits = NormalValues(64, 8, 2.0f);
  const Routed sorted = Route(options, logits, {}, Dtype::kF32, TieOrder::kTorchCpu);
  EXPECT_EQ(sorted.ids, Route(options, logits).ids);
  options.sorted_selection = false;
  const Routed unsorted = Route(options, logits, {}, Dtype::kF32, TieOrder::kTorchCpu);
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

// Two requests in one batch, with groups: each as if it were alone.
TEST(Routing, ARequestDoesNotDependOnItsBatch) {
  std::vector<RoutingOptions> points = ManyPoints();
  const size_t plain = points.size();
  for (const DropPolicy drop : {DropPolicy::kPosition, DropPolicy::kBatchPrioritised,
                                DropPolicy::kScore, DropPolicy::kNextBest}) {
    points.push_back(Options(6, 2));
    points.back().capacity.factor = 0.75f;
    points.back().capacity.drop = drop;
    points.back().second_expert = SecondExpert::kRandom;
    points.back().noise = Noise::kGumbel;
  }
  points.push_back(Options(6, 0));
  points.back().choice = Choice::kExpertChoice;
  points.back().capacity.factor = 1.5f;
  EXPECT_EQ(points.size(), plain + 5);
  for (const RoutingOptions& options : points) {
    const size_t experts = options.num_experts;
    const std::vector<float> bias(options.select_bias ? experts : 0, 0.1f);
    const std::vector<float> logits = NormalValues(experts * 20, 15, 2.0f);
    const uint32_t sizes[] = {5, 0, 6};
    const RequestTokens requests[] = {{9, {}, {}, 1}, {11, sizes, {}, 2}};
    const RoutingRules rules{options};
    const RoutedTokens both = RouteAll(rules, {requests, logits, {.checkpoint = bias}});
    const absl::Span<const float> second = absl::MakeConstSpan(logits).subspan(9 * experts);
    const RoutedTokens alone = RouteAll(rules, {{&requests[1], 1}, second, {.checkpoint = bias}});
    const uint32_t first = both.token_begin[9];
    for (size_t token = 0; token <= 11; ++token) {
      EXPECT_EQ(both.token_begin[9 + token] - first, alone.token_begin[token]);
    }
    ASSERT_EQ(both.expert_ids.size() - first, alone.expert_ids.size());
    EXPECT_TRUE(SameRows(absl::MakeConstSpan(both.expert_ids).subspan(first), alone.expert_ids, 1));
    EXPECT_TRUE(SameBits(absl::MakeConstSpan(both.weights).subspan(first),
                         absl::MakeConstSpan(alone.weights), 1));
    std::vector<DroppedAssignment> dropped;
    for (const DroppedAssignment& one : both.dropped) {
      if (one.token >= 9) {
        dropped.push_back({one.token - 9, one.expert});
      }
    }
    EXPECT_EQ(dropped, alone.dropped);
  }
}

// torch.rand on a CPU: element order, 24 bits of each number of the generator.
class TorchRandom final : public RandomSource {
 public:
  explicit TorchRandom(size_t skip) { random_.discard(skip); }

  static float Next(std::mt19937* random) {
    return static_cast<float>((*random)() & 0xffffff) * 0x1p-24f;
  }

  // One number for each token.
  float Uniform(RandomUse use, const RandomKey& key, uint32_t index) const override {
    EXPECT_EQ(use, RandomUse::kSecondExpert);
    EXPECT_EQ(index, 1u);
    std::mt19937 random = random_;
    random.discard(key.token);
    return Next(&random);
  }

 private:
  std::mt19937 random_{0};
};

// The table of NLLB-MoE's own test of its second-expert policy: logits are the first numbers of
// seed 0; the generator is seeded again, and the gate's [4, 32] weight takes the first 128 of them.
TEST(Routing, NllbSecondExpertTable) {
  std::mt19937 random(0);
  std::vector<float> logits(40 * 4);
  for (float& logit : logits) {
    logit = TorchRandom::Next(&random);
  }
  ASSERT_FLOAT_EQ(logits[0], 0.4962566f);
  RoutingOptions options = Options(4, 2);
  options.second_expert = SecondExpert::kRandom;
  options.second_expert_threshold = 0.5f;
  options.renormalise = Renormalise::kClampedSum;
  options.renormalise_epsilon = std::numeric_limits<float>::epsilon();
  options.renormalise_after_drop = true;
  const TorchRandom torch(128);
  const RoutedTokens routed =
      RouteAll({options, TieOrder::kLowestIndex, Dtype::kF32, &torch}, {{}, logits});
  const std::vector<std::vector<float>> table = {
      {0.4324f, 0.5676f, 0, 0}, {0, 0.4348f, 0, 0.5652f}, {0.4559f, 0.5441f, 0, 0},
      {0, 0, 0, 1.0f},          {0.4744f, 0.5256f, 0, 0}, {0, 0.5103f, 0, 0.4897f}};
  for (size_t token = 0; token < table.size(); ++token) {
    std::vector<float> weights(4, 0.0f);
    for (uint32_t at = routed.token_begin[token]; at < routed.token_begin[token + 1]; ++at) {
      weights[routed.expert_ids[at]] = routed.weights[at];
    }
    EXPECT_TRUE(RowsNear(weights, table[token], 4, 1e-4)) << "token " << token;
  }
}

// Probabilities of the Switch Transformer's own test.
TEST(Routing, SwitchIndices) {
  RoutingOptions options = Options(2, 1);
  options.score = ScoreFunction::kIdentity;
  const std::vector<float> probabilities = {0.35490513f, 0.60419905f, 0.4275843f,  0.23061597f,
                                            0.32985854f, 0.43953657f, 0.25099766f, 0.27730572f,
                                            0.7678207f,  0.71474564f};
  EXPECT_THAT(Route(options, probabilities).ids, ElementsAre(1, 0, 1, 1, 0));
}

TEST(Routing, ScoresAreRoundedBeforeAnythingIsChosen) {
  RoutingOptions options = Options(3, 1);
  options.score = ScoreFunction::kIdentity;
  const std::vector<float> logits = {0.0f, 1.0f, 1.0f + 0x1p-12f};
  EXPECT_THAT(Route(options, logits, {}, Dtype::kBF16).ids, ElementsAre(2));
  options.score_dtype = ScoreDtype::kModel;
  EXPECT_THAT(Route(options, logits, {}, Dtype::kBF16).ids, ElementsAre(1)) << "a tie now";
  EXPECT_THAT(Route(options, logits, {}, Dtype::kF32).ids, ElementsAre(2));
}

TEST(Routing, TemperatureDividesLogits) {
  RoutingOptions options = Options(2, 2);
  options.temperature = 4.0f;
  EXPECT_EQ(Route(options, {8.0f, 4.0f}).weights, Route(Options(2, 2), {2.0f, 1.0f}).weights);
}

TEST(Routing, RenormaliseKinds) {
  RoutingOptions options = Options(2, 2);
  options.score = ScoreFunction::kIdentity;
  options.renormalise = Renormalise::kLp;
  EXPECT_THAT(Route(options, {4.0f, -1.0f}).weights, ElementsAre(0.8f, -0.2f));
  options.renormalise_p = 2.0f;
  EXPECT_THAT(Route(options, {4.0f, -3.0f}).weights,
              ElementsAre(FloatNear(0.8f, 1e-6f), FloatNear(-0.6f, 1e-6f)));
  options.renormalise = Renormalise::kClampedSum;
  options.renormalise_epsilon = 8.0f;
  EXPECT_THAT(Route(options, {3.0f, 1.0f}).weights, ElementsAre(0.375f, 0.125f));
  options.renormalise_epsilon = 2.0f;
  EXPECT_THAT(Route(options, {3.0f, 1.0f}).weights, ElementsAre(0.75f, 0.25f));
}

TEST(Routing, TheSumIsClampedToTheStepOfTheActivationsType) {
  RoutingOptions options = Options(2, 2);
  options.score = ScoreFunction::kIdentity;
  options.renormalise = Renormalise::kDtypeClampedSum;
  const float step[] = {0x1p-7f, 0x1p-10f, 0x1p-23f};
  const Dtype dtypes[] = {Dtype::kBF16, Dtype::kF16, Dtype::kF32};
  for (size_t i = 0; i < 3; ++i) {
    const float half = step[i] / 2;
    EXPECT_THAT(Route(options, {step[i], step[i]}, {}, dtypes[i]).weights, ElementsAre(0.5f, 0.5f));
    EXPECT_THAT(Route(options, {half / 4, half / 4}, {}, dtypes[i]).weights,
                ElementsAre(0.125f, 0.125f));
  }
}

TEST(Routing, RenormalisingAfterTheDropGivesTheSurvivorAll) {
  RoutingOptions options = Options(2, 2);
  options.score = ScoreFunction::kIdentity;
  options.renormalise = Renormalise::kSum;
  options.capacity.tokens = 1;
  const std::vector<float> logits = {3.0f, 1.0f, 3.0f, 1.0f};
  const RoutedTokens before = RouteAll({options}, {{}, logits});
  EXPECT_THAT(before.weights, ElementsAre(0.75f, 0.25f));
  EXPECT_THAT(before.token_begin, ElementsAre(0, 2, 2));
  options.capacity.drop = DropPolicy::kScore;
  options.renormalise_after_drop = true;
  const RoutedTokens after = RouteAll({options}, {{}, {3.0f, 1.0f, 1.0f, 2.0f}});
  EXPECT_THAT(after.expert_ids, ElementsAre(0, 1));
  EXPECT_THAT(after.weights, ElementsAre(1.0f, 1.0f));
}

TEST(Routing, SparseMixerOfTiesZerosAndInfinities) {
  RoutingOptions options = Options(4, 2);
  options.choice = Choice::kSparseMixer;
  options.sparse_mixer_epsilon = 0.01f;
  EXPECT_THAT(Route(options, {0, 0, 0, 0}).ids, ElementsAre(0, 1));
  EXPECT_THAT(Route(options, {0, 0, 0, 0}).weights,
              ElementsAre(0.25f, FloatNear(1.0f / 3.0f, 1e-6f)));
  EXPECT_THAT(Route(options, {-kInfinity, 5, -kInfinity, -kInfinity}).ids, ElementsAre(1, 0));
  EXPECT_THAT(Route(options, {1, kNan, 2, kNan}).ids, ElementsAre(1, 3));
}

TEST(Routing, SparseMixerMeasuresNegativeLogitsByTheirOwnSize) {
  RoutingOptions options = Options(4, 2);
  options.choice = Choice::kSparseMixer;
  options.sparse_mixer_epsilon = 0.01f;
  const Routed routed = Route(options, {-1.0f, -1.01f, -5.0f, -2.0f});
  EXPECT_THAT(routed.ids, ElementsAre(0, 1));
  EXPECT_THAT(routed.weights, ElementsAre(FloatNear(0.5025f, 1e-6f), 1.0f));
  // -1.5 is 0.5 behind: a third of its own size, half of the best one's; the threshold is 0.4.
  options.sparse_mixer_epsilon = 0.2f;
  EXPECT_THAT(Route(options, {-1.0f, -1.5f, -4.0f, -9.0f}).weights,
              ElementsAre(FloatNear(0.6224593f, 1e-6f), 1.0f));
}

// 5 / 249 is above the threshold 0.02; both are the same bfloat16.
TEST(Routing, SparseMixerRoundsTheShareBeforeItIsCompared) {
  RoutingOptions options = Options(2, 2);
  options.choice = Choice::kSparseMixer;
  options.sparse_mixer_epsilon = 0.01f;
  const std::vector<float> logits = {249.0f, 244.0f};
  EXPECT_EQ(Route(options, logits, {}, Dtype::kBF16).weights[0], 1.0f) << "logits in float32";
  options.logit_dtype = LogitDtype::kModel;
  EXPECT_LT(Route(options, logits, {}, Dtype::kBF16).weights[0], 1.0f);
}

TEST(Routing, SelectedScoresAreRoundedBeforeTheyAreScaled) {
  RoutingOptions options = Options(3, 2);
  options.scope = ScoreScope::kSelected;
  options.scale = 3.0f;
  const float exact = 1.0f / (1.0f + std::exp(-1.0f));
  const std::vector<float> logits = {2.0f, 1.0f, 0.0f};
  EXPECT_THAT(Route(options, logits, {}, Dtype::kBF16).weights[0], FloatNear(3 * exact, 1e-6f));
  options.score_dtype = ScoreDtype::kModel;
  EXPECT_EQ(Route(options, logits, {}, Dtype::kBF16).weights[0],
            3.0f * FloatFromBF16(BF16FromFloat(exact)));
}

// Expert 0 has room for one token. The second one gave up expert 1 by chance, so that its next best
// is expert 2.
TEST(Routing, AnExpertGivenUpIsNoNextBest) {
  RoutingOptions options = Options(3, 2);
  options.score = ScoreFunction::kIdentity;
  options.second_expert = SecondExpert::kRandom;
  options.second_expert_threshold = 100.0f;  // Given up, nearly always.
  options.capacity.tokens = 1;
  options.capacity.drop = DropPolicy::kNextBest;
  const RoutedTokens routed =
      RouteAll({options}, {{}, std::vector<float>{3.0f, 2.0f, 1.0f, 3.0f, 2.0f, 1.0f}});
  EXPECT_THAT(routed.expert_ids, ElementsAre(0, 2));
  EXPECT_THAT(routed.dropped, ElementsAre(DroppedAssignment{1, 0}));
}

TEST(Routing, ExpertChoiceTiesGoToTheEarlierToken) {
  RoutingOptions options = Options(2, 0);
  options.choice = Choice::kExpertChoice;
  options.capacity.tokens = 2;
  options.score = ScoreFunction::kIdentity;
  const RoutedTokens routed = RouteAll({options}, {{}, std::vector<float>{1, 0, 1, 2, 1, 2}});
  EXPECT_THAT(routed.token_begin, ElementsAre(0, 1, 3, 4));
  EXPECT_THAT(routed.expert_ids, ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(routed.weights, ElementsAre(1, 2, 1, 2));
}

// After the first batch nothing is allocated that grows with the batch: capacities stay.
TEST(Routing, ScratchAndAnswerAreReused) {
  RoutingOptions options = Options(16, 4);
  options.capacity.factor = 0.5f;
  options.capacity.drop = DropPolicy::kNextBest;
  const RequestTokens request{50};
  const std::vector<float> logits = NormalValues(16 * 50, 9, 2.0f);
  RoutingScratch scratch;
  RoutedTokens routed;
  const RoutingRules rules{options};
  RouteTokens(rules, {{&request, 1}, logits}, &scratch, &routed);
  const auto* ids = routed.expert_ids.data();
  const auto* choices = scratch.all_choices.data();
  const auto* load = scratch.capacity.load.data();
  RouteTokens(rules, {{&request, 1}, logits}, &scratch, &routed);
  EXPECT_EQ(routed.expert_ids.data(), ids);
  EXPECT_EQ(scratch.all_choices.data(), choices);
  EXPECT_EQ(scratch.capacity.load.data(), load);
}

}  // namespace
}  // namespace expertmesh::gate
