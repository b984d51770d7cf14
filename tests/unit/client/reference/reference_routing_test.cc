#include "client/cpp/reference/reference_routing.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::reference {
namespace {

using testing::ElementsAre;
using testing::FloatEq;
using testing::FloatNear;
using testing::IsEmpty;
using testing::Pointwise;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

const std::vector<float>& GoldenLogits() {
  static const std::vector<float>* const kLogits =
      new std::vector<float>{0.5f, 2.0f, -1.0f, 1.5f, 0.0f, 1.0f, -0.5f, 0.25f};
  return *kLogits;
}

RoutingOptions Options(uint32_t experts, uint32_t top_k) {
  RoutingOptions routing;
  routing.num_experts = experts;
  routing.top_k = top_k;
  return routing;
}

// One token.
ReferenceRouting Route(const RoutingOptions& options, Dtype activation_dtype,
                       const std::vector<float>& logits, const std::vector<float>& bias = {}) {
  ReferenceGroup group;
  group.logits = logits;
  group.select_bias = bias;
  group.activation_dtype = activation_dtype;
  return RouteReference(options, group)[0];
}

RoutingOptions DeepseekV3() {
  RoutingOptions routing = Options(8, 2);
  routing.score = ScoreFunction::kSigmoid;
  routing.select_bias = true;
  routing.n_group = 4;
  routing.topk_group = 2;
  routing.group_score = GroupScore::kTopTwoSum;
  routing.masked_choice = -kInfinity;
  routing.renormalise = Renormalise::kSum;
  routing.renormalise_epsilon = 1e-20f;
  routing.scale = 2.5f;
  return routing;
}

TEST(ReferenceRoutingTest, SoftmaxWithoutRenormalising) {
  const ReferenceRouting routing = Route(Options(8, 2), Dtype::kF32, GoldenLogits());
  EXPECT_THAT(routing.expert_ids, ElementsAre(1, 3));
  EXPECT_THAT(routing.weights, Pointwise(FloatNear(1e-6f), {0.3790001f, 0.2298752f}));
  EXPECT_NEAR(routing.margin, 0.2298752f - 0.1394264f, 1e-6f);
  EXPECT_FALSE(routing.tie);
}

TEST(ReferenceRoutingTest, SoftmaxRenormalised) {
  RoutingOptions options = Options(8, 2);
  options.renormalise = Renormalise::kSum;
  EXPECT_THAT(Route(options, Dtype::kF32, GoldenLogits()).weights,
              Pointwise(FloatNear(1e-6f), {0.6224593f, 0.3775407f}));
  options.renormalise = Renormalise::kNone;
  options.scope = ScoreScope::kSelected;
  EXPECT_THAT(Route(options, Dtype::kF32, GoldenLogits()).weights,
              Pointwise(FloatNear(1e-6f), {0.6224593f, 0.3775407f}));
}

TEST(ReferenceRoutingTest, DeepseekV3Groups) {
  const std::vector<float> bias = {0.0f, -0.3f, 0.4f, 0.0f, 0.35f, 0.0f, 0.1f, 0.0f};
  const ReferenceRouting routing = Route(DeepseekV3(), Dtype::kBF16, GoldenLogits(), bias);
  EXPECT_THAT(routing.expert_ids, ElementsAre(4, 3));
  EXPECT_THAT(routing.weights, Pointwise(FloatNear(1e-6f), {0.948713f, 1.551287f}));
  // Expert 3 (.8176) is ahead of expert 5 (.7311) by less than group 1 of group 0 (.2833).
  EXPECT_NEAR(routing.margin, 0.8175745f - 0.7310586f, 1e-6f);
}

TEST(ReferenceRoutingTest, MaxGroupsMaskedWithZero) {
  RoutingOptions options = Options(8, 2);
  options.n_group = 4;
  options.topk_group = 1;
  options.group_score = GroupScore::kMax;
  options.scale = 16.0f;
  const ReferenceRouting routing = Route(options, Dtype::kF32, GoldenLogits());
  EXPECT_THAT(routing.expert_ids, ElementsAre(1, 0));
  EXPECT_THAT(routing.weights, Pointwise(FloatNear(1e-5f), {6.064002f, 1.3530617f}));
}

// With a bias of -1 or less every choice is negative: masked by 0.0, experts of groups that were
// left out would win. Groups sum to 1.503, 1.087, 1.231 and .940 (minus 4): 0 and 2 are kept.
TEST(ReferenceRoutingTest, MinusInfinityKeepsOtherGroupsOut) {
  const std::vector<float> bias(8, -2.0f);
  RoutingOptions options = DeepseekV3();
  EXPECT_THAT(Route(options, Dtype::kF32, GoldenLogits(), bias).expert_ids, ElementsAre(1, 5));
  options.masked_choice = 0.0f;
  EXPECT_THAT(Route(options, Dtype::kF32, GoldenLogits(), bias).expert_ids, ElementsAre(2, 3));
}

TEST(ReferenceRoutingTest, MarginOfGroupsCounts) {
  // Groups {0, 1} and {2, 3} sum to the same; the lower one is kept.
  RoutingOptions options = Options(4, 1);
  options.score = ScoreFunction::kIdentity;
  options.n_group = 2;
  options.topk_group = 1;
  options.group_score = GroupScore::kTopTwoSum;
  options.masked_choice = -kInfinity;
  const std::vector<float> logits = {1.0f, 3.0f, 4.0f, 0.0f};
  const ReferenceRouting routing = Route(options, Dtype::kF32, logits);
  EXPECT_THAT(routing.expert_ids, ElementsAre(1));
  EXPECT_TRUE(routing.tie);
}

TEST(ReferenceRoutingTest, LowestIndexWinsTies) {
  const std::vector<float> logits = {0.0f, 1.0f, 1.0f, 1.0f};
  const ReferenceRouting routing = Route(Options(4, 2), Dtype::kF32, logits);
  EXPECT_THAT(routing.expert_ids, ElementsAre(1, 2));
  EXPECT_EQ(routing.margin, 0.0f);
  EXPECT_TRUE(routing.tie);
}

TEST(ReferenceRoutingTest, RoundsLikeTheModel) {
  // 1 and 1.001 are one number in bfloat16.
  const std::vector<float> logits = {1.0f, 1.001f, 0.0f};
  RoutingOptions options = Options(3, 1);
  options.logit_dtype = LogitDtype::kModel;
  options.weight_dtype = WeightDtype::kModel;
  const ReferenceRouting rounded = Route(options, Dtype::kBF16, logits);
  EXPECT_THAT(rounded.expert_ids, ElementsAre(0));
  EXPECT_TRUE(rounded.tie);
  EXPECT_EQ(rounded.weights[0], FloatFromBF16(BF16FromFloat(rounded.weights[0])));
  EXPECT_THAT(Route(options, Dtype::kF16, logits).expert_ids, ElementsAre(1));
  EXPECT_THAT(Route(options, Dtype::kF32, logits).expert_ids, ElementsAre(1));
  options.logit_dtype = LogitDtype::kF32;
  EXPECT_THAT(Route(options, Dtype::kBF16, logits).expert_ids, ElementsAre(1));
}

TEST(ReferenceRoutingTest, NothingLeftOutHasInfiniteMargin) {
  const ReferenceRouting routing = Route(Options(8, 8), Dtype::kF32, GoldenLogits());
  EXPECT_EQ(routing.expert_ids.size(), 8u);
  EXPECT_EQ(routing.margin, kInfinity);
  EXPECT_FALSE(routing.tie);
}

TEST(ReferenceRoutingTest, SurvivesNaN) {
  const std::vector<float> logits(4, std::numeric_limits<float>::quiet_NaN());
  const ReferenceRouting routing = Route(Options(4, 2), Dtype::kF32, logits);
  EXPECT_THAT(routing.expert_ids, ElementsAre(0, 1));
  EXPECT_TRUE(std::isnan(routing.weights[0]));
}

TEST(ReferenceRoutingTest, Scores) {
  RoutingOptions options = Options(8, 8);
  const auto weights_by_expert = [&](const std::vector<float>& logits) {
    const ReferenceRouting routing = Route(options, Dtype::kF32, logits);
    std::vector<float> weights(routing.weights.size());
    for (size_t slot = 0; slot < weights.size(); ++slot) {
      weights[routing.expert_ids[slot]] = routing.weights[slot];
    }
    return weights;
  };
  EXPECT_THAT(weights_by_expert(GoldenLogits()),
              Pointwise(FloatNear(1e-6f), {.0845664f, .3790001f, .0188693f, .2298752f, .0512921f,
                                           .1394264f, .0311102f, .0658603f}));
  options.score = ScoreFunction::kSigmoid;
  EXPECT_THAT(weights_by_expert(GoldenLogits()),
              Pointwise(FloatNear(1e-6f), {.6224593f, .8807971f, .2689414f, .8175745f, .5f,
                                           .7310586f, .3775407f, .5621765f}));
  options.score = ScoreFunction::kIdentity;
  EXPECT_EQ(weights_by_expert(GoldenLogits()), GoldenLogits());
  options = Options(3, 3);
  options.score = ScoreFunction::kSqrtSoftplus;
  // sqrt(ln 2), sqrt(ln(1 + e)), and for 400 (whose e^z overflows) 20.
  EXPECT_THAT(weights_by_expert({0.0f, 1.0f, 400.0f}),
              Pointwise(FloatNear(1e-6f), {0.8325546f, 1.1459763f, 20.0f}));
}

TEST(ReferenceRoutingTest, TemperatureDividesLogits) {
  RoutingOptions options = Options(2, 2);
  options.temperature = 2.0f;
  // softmax(1, 0)
  EXPECT_THAT(Route(options, Dtype::kF32, {2.0f, 0.0f}).weights,
              Pointwise(FloatNear(1e-6f), {.7310586f, .2689414f}));
}

TEST(ReferenceRoutingTest, LlamaTakesTheSigmoidOfTheSelected) {
  RoutingOptions options = Options(8, 1);
  options.score = ScoreFunction::kSigmoid;
  options.scope = ScoreScope::kSelected;
  const ReferenceRouting routing = Route(options, Dtype::kF32, GoldenLogits());
  EXPECT_THAT(routing.expert_ids, ElementsAre(1));
  EXPECT_THAT(routing.weights, ElementsAre(FloatNear(.8807971f, 1e-6f)));
}

TEST(ReferenceRoutingTest, ScoresAreRoundedBeforeTheChoice) {
  // Softmax of these is .50025 and .49975: one number in bfloat16.
  const std::vector<float> logits = {0.0f, 0.001f};
  RoutingOptions options = Options(2, 1);
  EXPECT_THAT(Route(options, Dtype::kBF16, logits).expert_ids, ElementsAre(1));
  options.score_dtype = ScoreDtype::kModel;
  const ReferenceRouting rounded = Route(options, Dtype::kBF16, logits);
  EXPECT_THAT(rounded.expert_ids, ElementsAre(0));
  EXPECT_TRUE(rounded.tie);
  EXPECT_EQ(rounded.weights[0], 0.5f);
  EXPECT_THAT(Route(options, Dtype::kF32, logits).expert_ids, ElementsAre(1));
  // When only the selected experts are scored, weights are rounded and the choice is not affected.
  options.scope = ScoreScope::kSelected;
  options.top_k = 2;
  EXPECT_THAT(Route(options, Dtype::kBF16, logits).expert_ids, ElementsAre(1, 0));
  EXPECT_THAT(Route(options, Dtype::kBF16, logits).weights, ElementsAre(0.5f, 0.5f));
}

TEST(ReferenceRoutingTest, Renormalise) {
  RoutingOptions options = Options(3, 2);
  options.score = ScoreFunction::kIdentity;
  const std::vector<float> logits = {3.0f, 4.0f, 1.0f};
  options.renormalise = Renormalise::kSum;
  options.renormalise_epsilon = 1.0f;
  EXPECT_THAT(Route(options, Dtype::kF32, logits).weights, ElementsAre(4.0f / 8, 3.0f / 8));
  options.renormalise = Renormalise::kClampedSum;
  EXPECT_THAT(Route(options, Dtype::kF32, logits).weights,
              ElementsAre(FloatEq(4.0f / 7), FloatEq(3.0f / 7)));
  options.renormalise_epsilon = 14.0f;
  EXPECT_THAT(Route(options, Dtype::kF32, logits).weights,
              ElementsAre(FloatEq(4.0f / 14), FloatEq(3.0f / 14)));
  options.renormalise = Renormalise::kDtypeClampedSum;
  const std::vector<float> small = {0x1p-11f, 0x1p-11f, 0.0f};  // 2^-10 together.
  EXPECT_THAT(Route(options, Dtype::kBF16, small).weights, ElementsAre(0x1p-4f, 0x1p-4f));
  EXPECT_THAT(Route(options, Dtype::kF16, small).weights, ElementsAre(0.5f, 0.5f));
  EXPECT_THAT(Route(options, Dtype::kF32, small).weights, ElementsAre(0.5f, 0.5f));
  options.renormalise = Renormalise::kLp;
  options.renormalise_p = 2.0f;
  EXPECT_THAT(Route(options, Dtype::kF32, logits).weights,
              ElementsAre(FloatEq(4.0f / 5), FloatEq(3.0f / 5)));
  options.scale = 10.0f;
  EXPECT_THAT(Route(options, Dtype::kF32, logits).weights,
              ElementsAre(FloatEq(8.0f), FloatEq(6.0f)));
}

RoutingOptions SparseMixer(uint32_t experts, float epsilon) {
  RoutingOptions options = Options(experts, 2);
  options.choice = Choice::kSparseMixer;
  options.sparse_mixer_epsilon = epsilon;
  return options;
}

TEST(ReferenceRoutingTest, SparseMixer) {
  const ReferenceRouting narrow = Route(SparseMixer(8, .01f), Dtype::kF32, GoldenLogits());
  EXPECT_THAT(narrow.expert_ids, ElementsAre(1, 3));
  EXPECT_THAT(narrow.weights, ElementsAre(1.0f, 1.0f));
  const ReferenceRouting wide = Route(SparseMixer(8, .2f), Dtype::kF32, GoldenLogits());
  EXPECT_THAT(wide.expert_ids, ElementsAre(1, 3));
  EXPECT_THAT(wide.weights, Pointwise(FloatNear(1e-6f), {.6224593f, .6224593f}));
  const ReferenceRouting close =
      Route(SparseMixer(4, .01f), Dtype::kF32, {1.0f, 1.01f, 1.005f, -2.0f});
  EXPECT_THAT(close.expert_ids, ElementsAre(1, 2));
  EXPECT_THAT(close.weights, Pointwise(FloatNear(1e-5f), {.3350014f, .50125f}));
}

TEST(ReferenceRoutingTest, SparseMixerMeasuresALogitByItsOwnSize) {
  // -1.5 is 0.5 behind: a third of its own size, half of the best one's; the threshold is 0.4.
  EXPECT_THAT(Route(SparseMixer(3, .2f), Dtype::kF32, {-1.0f, -1.5f, -4.0f}).weights,
              Pointwise(FloatNear(1e-6f), {.6224593f, 1.0f}));
}

TEST(ReferenceRoutingTest, SparseMixerKnowsWhenTheThresholdDecides) {
  // Expert 1 is exactly 2 * epsilon behind.
  EXPECT_EQ(Route(SparseMixer(3, .125f), Dtype::kF32, {1.0f, .75f, -4.0f}).margin, 0.0f);
  EXPECT_NEAR(Route(SparseMixer(3, .125f), Dtype::kF32, {1.0f, .7f, -4.0f}).margin, .05f, 1e-6f);
}

TEST(ReferenceRoutingTest, Hash) {
  RoutingOptions options = Options(4, 1);
  options.choice = Choice::kHash;
  const std::vector<float> logits(8);
  const std::vector<uint32_t> token_ids = {11, 4};
  ReferenceGroup group;
  group.logits = logits;
  group.token_ids = token_ids;
  const std::vector<ReferenceRouting> routed = RouteReference(options, group);
  EXPECT_THAT(routed[0].expert_ids, ElementsAre(3));
  EXPECT_THAT(routed[1].expert_ids, ElementsAre(0));
  EXPECT_THAT(routed[1].weights, ElementsAre(1.0f));
  EXPECT_EQ(routed[0].margin, kInfinity);
}

TEST(ReferenceRoutingTest, RandomParts) {
  RoutingOptions options = Options(4, 2);
  EXPECT_EQ(RandomPart(options), "");
  options.second_expert = SecondExpert::kRandom;
  EXPECT_EQ(RandomPart(options), "second_expert = random");
  options.second_expert = SecondExpert::kSampled;
  EXPECT_EQ(RandomPart(options), "second_expert = sampled");
  options.noise = Noise::kLearnedNormal;
  EXPECT_EQ(RandomPart(options), "noise = learned_normal");
}

TEST(ReferenceRoutingTest, RoundingExplainsWhatTheLastBitsDecide) {
  RoutingOptions options = Options(3, 1);
  const std::vector<float> logits = {1.0f, 1.000001f, 0.5f};
  ReferenceGroup group;
  group.logits = logits;
  const std::vector<ReferenceRouting> routed = RouteReference(options, group);
  EXPECT_THAT(routed[0].expert_ids, ElementsAre(1));
  EXPECT_TRUE(RoundingExplains(options, group, routed, {TokenExperts{{0}, {1}}}));
  EXPECT_FALSE(RoundingExplains(options, group, routed, {TokenExperts{{2}, {1}}}));
}

// 1.0039063 is half way between two numbers of bfloat16: which one it becomes is decided by bits
// that the logits do not have, and a whole step lies between the outcomes.
TEST(ReferenceRoutingTest, RoundingExplainsAStepOfTheModelsType) {
  RoutingOptions options = Options(2, 1);
  options.logit_dtype = LogitDtype::kModel;
  const std::vector<float> logits = {1.0f, 1.0039065f};
  ReferenceGroup group;
  group.logits = logits;
  group.activation_dtype = Dtype::kBF16;
  const std::vector<ReferenceRouting> routed = RouteReference(options, group);
  EXPECT_THAT(routed[0].expert_ids, ElementsAre(1));
  EXPECT_GT(routed[0].margin, 1e-4f);
  EXPECT_TRUE(RoundingExplains(options, group, routed, {TokenExperts{{0}, {1}}}));
}

}  // namespace
}  // namespace expertmesh::reference
