#include "common/balance/measures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace expertmesh::balance {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(MaxViolationTest, IsTheExcessOfTheFullestOverTheMean) {
  EXPECT_EQ(MaxViolation({}), 0);
  EXPECT_EQ(MaxViolation({0, 0}), 0);
  EXPECT_EQ(MaxViolation({5, 5, 5}), 0);
  EXPECT_DOUBLE_EQ(MaxViolation({3, 1, 0, 4}), 1.0);
  EXPECT_DOUBLE_EQ(MaxViolation({9, 3, 0, 0}), 2.0);
  // All 12 tokens of top-2 routing to the same two of 8 experts: 8 / 2 - 1.
  EXPECT_DOUBLE_EQ(MaxViolation({12, 12, 0, 0, 0, 0, 0, 0}), 3.0);
}

TEST(MaxViolationTest, OfAllBatchesIsNotTheMeanOfTheBatches) {
  MaxViolationMeter meter(2);
  meter.Add({8, 0});
  meter.Add({0, 8});
  meter.Add({0, 0});  // No tokens of this layer: no batch.
  meter.Add({3, 1});
  EXPECT_DOUBLE_EQ(meter.global(), 0.1);
  EXPECT_DOUBLE_EQ(meter.batch(), 2.5 / 3);
  EXPECT_DOUBLE_EQ(meter.worst_batch(), 1.0);
  EXPECT_EQ(meter.batches(), 3u);
}

TEST(CountMeasuresTest, KnowWhatBalancedMeansAndWhatOneExpertForAll) {
  const std::vector<uint64_t> even = {6, 6, 6, 6};
  EXPECT_EQ(CoefficientOfVariation(even), 0);
  EXPECT_DOUBLE_EQ(NormalisedEntropy(even), 1);
  EXPECT_DOUBLE_EQ(MeanSquaredShare(even), 1.0 / 16);
  const std::vector<uint64_t> one = {0, 0, 24, 0};
  EXPECT_DOUBLE_EQ(CoefficientOfVariation(one), std::sqrt(3.0));
  EXPECT_DOUBLE_EQ(NormalisedEntropy(one), 0);
  EXPECT_DOUBLE_EQ(MeanSquaredShare(one), 0.25);
  const std::vector<uint64_t> none = {0, 0, 0, 0};
  EXPECT_EQ(CoefficientOfVariation(none), 0);
  EXPECT_EQ(NormalisedEntropy(none), 1);
  EXPECT_DOUBLE_EQ(MeanSquaredShare(none), 1.0 / 16);
}

TEST(CountMeasuresTest, NameTheFullestAndTheDead) {
  const FullestExpert fullest = FindFullest({1, 6, 0, 6, 0, 2});
  EXPECT_EQ(fullest.expert, 1u);
  EXPECT_DOUBLE_EQ(fullest.share, 0.4);
  EXPECT_THAT(DeadExperts({1, 6, 0, 6, 0, 2}), ElementsAre(2, 4));
  EXPECT_EQ(FindFullest({0, 0}).share, 0);
}

TEST(CollapseTest, IsNamed) {
  const Collapse one = FindCollapse({10, 10, 10, 10, 10, 10, 10, 930}, 1);
  EXPECT_EQ(one.text, "collapsed: expert 7 gets 93 % of the assignments");
  EXPECT_THAT(one.collapsed, ElementsAre(7));
  const Collapse two = FindCollapse({0, 470, 0, 20, 460, 50, 0, 0}, 2);
  EXPECT_EQ(two.text,
            "collapsed: experts 1,4 get 93 % of the assignments; "
            "dead: experts 0,2,6-7 (4 of 8)");
  EXPECT_DOUBLE_EQ(two.share, 0.93);
  const Collapse dead = FindCollapse({0, 50, 60, 50}, 1);
  EXPECT_EQ(dead.text, "dead: expert 0 (1 of 4)");
  EXPECT_THAT(dead.collapsed, IsEmpty());
  EXPECT_TRUE(dead.any());
}

TEST(CollapseTest, IsNotSeenWhereThereIsNone) {
  EXPECT_FALSE(FindCollapse({89, 4, 4, 3}, 1).any()) << "below the limit";
  EXPECT_FALSE(FindCollapse({45, 44, 7, 4}, 2).any()) << "two of top-2";
  EXPECT_FALSE(FindCollapse({0, 20, 19, 20}, 1).any()) << "too few tokens to call one dead";
  EXPECT_FALSE(FindCollapse({100, 100}, 2).any()) << "no choice";
  EXPECT_FALSE(FindCollapse({0, 0, 0}, 1).any());
  EXPECT_FALSE(FindCollapse({0, 1, 0, 1, 0, 0, 0, 0}, 2).any()) << "one token";
  EXPECT_FALSE(FindCollapse(std::vector<uint64_t>(10, 900), 9).any()) << "9 of 10 have 90 %";
}

TEST(BalanceLossTest, AreOneOrTopKWhereAllIsEven) {
  const std::vector<uint64_t> counts = {6, 6, 6, 6};  // 12 tokens, top-2.
  const std::vector<double> probabilities = {3, 3, 3, 3};
  const ScoredTokens even = {12, 2, counts, probabilities};
  EXPECT_DOUBLE_EQ(SwitchLoss(even, FractionConvention::kAllSlots), 2);
  EXPECT_DOUBLE_EQ(SwitchLoss(even, FractionConvention::kPerSlot), 1);
  EXPECT_DOUBLE_EQ(MegatronLoss(even), 1);
  EXPECT_DOUBLE_EQ(GshardLoss({3, 3, 3, 3}, 12, probabilities), 1.0 / 16);
  EXPECT_DOUBLE_EQ(HuggingFaceLoss({even, even}), 2);
  EXPECT_DOUBLE_EQ(DeepSeekV2SequenceLoss({even, even}), 1e-3);
  EXPECT_DOUBLE_EQ(DeepSeekV3SequenceLoss(even), 1e-4);
  EXPECT_DOUBLE_EQ(MeanSquaredShare(probabilities), 1.0 / 16);
  // As they are without any token.
  const std::vector<uint64_t> no_counts(4);
  const std::vector<double> no_probabilities(4);
  const ScoredTokens none = {0, 2, no_counts, no_probabilities};
  EXPECT_EQ(SwitchLoss(none, FractionConvention::kAllSlots), 2);
  EXPECT_EQ(MegatronLoss(none), 1);
  EXPECT_EQ(HuggingFaceLoss({none}), 2);
  EXPECT_EQ(GshardLoss(no_counts, 0, no_probabilities), 1.0 / 16);
  EXPECT_EQ(MegatronGlobalLoss(none, counts, 12), 1);
  EXPECT_EQ(MegaBlocksLoss({}, 0.5), 0.5);
  EXPECT_EQ(ScoreAccumulator(4).SecondPlaceLoss(), 1);
  EXPECT_EQ(MeshTensorFlowLoss(no_counts, ScoreAccumulator(4)), 1.5);
}

// Batches of a step are of one size: with the counts of all, their mean is the loss of the step.
TEST(BalanceLossTest, MegatronsGlobalLossIsThatOfTheWholeStep) {
  const std::vector<uint64_t> first = {4, 0};
  const std::vector<uint64_t> second = {1, 3};
  const std::vector<uint64_t> both = {5, 3};
  const std::vector<double> p_first = {3, 1};
  const std::vector<double> p_second = {1.5, 2.5};
  const std::vector<double> p_both = {4.5, 3.5};
  EXPECT_DOUBLE_EQ(MegatronGlobalLoss({4, 1, first, p_first}, both, 8) +
                       MegatronGlobalLoss({4, 1, second, p_second}, both, 8),
                   2 * MegatronLoss({8, 1, both, p_both}));
}

// Three tokens whose first choice is expert 0, however much they prefer it; of the rest one has
// three quarters.
TEST(BalanceLossTest, SecondPlacesAreOfWhatTheFirstLeaves) {
  ScoreAccumulator scores(3);
  for (const float lead : {1.0f, 20.0f, 60.0f}) {
    scores.AddSoftmaxLogits({lead, 0, std::log(3.0f)});
    scores.AddSecondChoice(0, 2);
  }
  EXPECT_NEAR(scores.SecondPlaceLoss(), 3 * 0.75, 1e-5);
  ScoreAccumulator other(3);
  other.AddProbabilities({0.6f, 0.3f, 0.1f});
  other.AddSecondChoice(0, 1);
  EXPECT_NEAR(other.SecondPlaceLoss(), 3 * 0.75, 1e-5);
  scores.Merge(other);
  // Means over four tokens: P is (0, .375, .625), f is (0, .25, .75).
  EXPECT_NEAR(scores.SecondPlaceLoss(), 3 * (.375 * .25 + .625 * .75), 1e-5);
  scores.Clear();
  EXPECT_EQ(scores.SecondPlaceLoss(), 1);
}

// Hugging Face's averages over layers come before the product: two layers, each collapsed onto
// another expert, are balanced for it.
TEST(BalanceLossTest, HuggingFaceDoesNotSeeLayersApart) {
  const std::vector<uint64_t> first = {4, 0};
  const std::vector<uint64_t> second = {0, 4};
  const std::vector<double> p_first = {4, 0};
  const std::vector<double> p_second = {0, 4};
  const ScoredTokens a = {4, 1, first, p_first};
  const ScoredTokens b = {4, 1, second, p_second};
  EXPECT_DOUBLE_EQ(SwitchLoss(a, FractionConvention::kAllSlots), 2);
  EXPECT_DOUBLE_EQ(HuggingFaceLoss({a, b}), 1);
}

// The published expectations of Switch Transformers' tests in Hugging Face transformers 4.57.6.
TEST(PublishedNumbersTest, SwitchLoss) {
  ScoreAccumulator scores(2);
  for (const std::vector<float>& row : std::vector<std::vector<float>>{{0.35490513f, 0.60419905f},
                                                                       {0.4275843f, 0.23061597f},
                                                                       {0.32985854f, 0.43953657f},
                                                                       {0.25099766f, 0.27730572f},
                                                                       {0.7678207f, 0.71474564f}}) {
    scores.AddProbabilities(row);
  }
  const std::vector<uint64_t> counts = {3, 2};  // Indices 0, 1, 1, 0, 0.
  const ScoredTokens tokens = {scores.tokens(), 1, counts, scores.probability_sums()};
  EXPECT_NEAR(SwitchLoss(tokens, FractionConvention::kAllSlots), 0.8741045, 1e-6);
  EXPECT_NEAR(4 * GshardLoss(counts, 5, scores.probability_sums()), 0.8741045, 1e-6)
      << "their code multiplies by num_experts^2";
  EXPECT_EQ(scores.ZLoss(), 0) << "no logits were given";
}

TEST(PublishedNumbersTest, ZLoss) {
  const std::vector<std::vector<float>> logits = {
      {-4.2124424f, 3.891939f, -3.6481273f, 1.8849981f},
      {0.32625437f, 2.918651f, 0.84758997f, -4.556842f},
      {-3.32062f, 4.6977115f, -0.15439987f, 0.44086337f},
      {3.4467149f, 4.3436565f, -4.7224274f, -4.264637f},
      {-2.224406f, -2.5318158f, -1.3832569f, 1.1891162f},
      {-2.320062f, -0.44705987f, 4.289819f, -0.00662684f},
      {0.99470854f, -0.6992364f, 0.25503993f, 4.2952085f},
      {3.5937333f, -3.2408535f, -4.298278f, 4.426601f},
      {0.7669008f, 2.6588762f, 2.4505413f, 4.6051874f},
      {0.23330331f, -3.0845237f, 0.6262374f, -2.9865491f},
      {0.7595146f, -2.1099675f, -4.155346f, -2.8326452f},
      {2.3771453f, 1.004138f, -3.1781673f, 0.7581556f}};
  ScoreAccumulator softmax(4);
  ScoreAccumulator sigmoid(4);
  for (const std::vector<float>& row : logits) {
    softmax.AddSoftmaxLogits(row);
    sigmoid.AddSigmoidLogits(row);
  }
  EXPECT_NEAR(softmax.ZLoss(), 13.786719, 1e-5);
  EXPECT_NEAR(sigmoid.ZLoss(), 13.786719, 1e-5);
}

// Groups of three tokens through a gate of two experts: each group's loss, and their mean.
TEST(PublishedNumbersTest, AGateOfTwoGroups) {
  const double weights[4][2] = {{0.02008116, 0.00620062},
                                {-0.00811031, -0.00031623},
                                {-0.03542127, 0.02703803},
                                {0.02335377, -0.02971946}};
  const double tokens[2][3][4] = {{{0.6433916, 0.18188512, 0.02240455, 0.563781},
                                   {0.5526401, 0.0958724, 0.34253013, 0.03644359},
                                   {0.08744538, 0.7909105, 0.35205448, 0.53364205}},
                                  {{0.02900076, 0.4168595, 0.5802449, 0.91486526},
                                   {0.27414513, 0.14991808, 0.9383501, 0.5209162},
                                   {0.51207185, 0.90618336, 0.7309413, 0.95533276}}};
  double loss = 0;
  ScoreAccumulator all(2);
  for (const auto& group : tokens) {
    ScoreAccumulator scores(2);
    for (const auto& token : group) {
      std::vector<float> logits(2);
      for (int expert = 0; expert < 2; ++expert) {
        double sum = 0;
        for (int i = 0; i < 4; ++i) {
          sum += token[i] * weights[i][expert];
        }
        logits[expert] = static_cast<float>(sum);
      }
      scores.AddSoftmaxLogits(logits);
    }
    // That test takes the place of the largest in the one-hot choice of the group, which is 0, 1, 0
    // for its tokens.
    const std::vector<uint64_t> counts = {2, 1};
    loss += SwitchLoss({3, 1, counts, scores.probability_sums()}, FractionConvention::kAllSlots);
    all.Merge(scores);
  }
  EXPECT_NEAR(loss / 2, 1.000308, 1e-6);
  EXPECT_NEAR(all.ZLoss(), 0.4789799, 1e-6);
  EXPECT_EQ(all.tokens(), 6u);
}

TEST(ScoreAccumulatorTest, GivesTheScoresOfTheGoldenVector) {
  const std::vector<float> logits = {.5f, 2, -1, 1.5f, 0, 1, -.5f, .25f};
  ScoreAccumulator scores(8);
  scores.AddSoftmaxLogits(logits);
  EXPECT_THAT(scores.probability_sums(),
              ElementsAre(DoubleNear(.0845664, 1e-6), DoubleNear(.3790001, 1e-6),
                          DoubleNear(.0188693, 1e-6), DoubleNear(.2298752, 1e-6),
                          DoubleNear(.0512921, 1e-6), DoubleNear(.1394264, 1e-6),
                          DoubleNear(.0311102, 1e-6), DoubleNear(.0658603, 1e-6)));
  scores.Clear();
  EXPECT_EQ(scores.tokens(), 0u);
  EXPECT_EQ(scores.ZLoss(), 0);
  scores.AddSigmoidLogits(logits);
  EXPECT_NEAR(scores.probability_sums()[1], .8807971 / 4.7605481, 1e-6);
  scores.Clear();
  scores.AddSoftmaxLogits(std::vector<float>(8, 0.0f));
  EXPECT_NEAR(scores.ZLoss(), std::log(8) * std::log(8), 1e-6);
  EXPECT_EQ(scores.ImportanceLoss(), 0);
}

TEST(ScoreAccumulatorTest, LogitsOfAnySizeGiveNumbers) {
  ScoreAccumulator scores(3);
  scores.AddSoftmaxLogits({3e4f, -3e4f, 0});
  scores.AddSigmoidLogits({3e4f, -3e4f, -1e4f});
  EXPECT_NEAR(scores.probability_sums()[0], 2, 1e-6);
  EXPECT_NEAR(scores.ZLoss(), 9e8, 1);
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const std::vector<float>& row :
       {std::vector<float>{0, kNan, 1}, {kNan, 0, 1}, {1, 2, kInfinity}}) {
    scores.AddSoftmaxLogits(row);
    scores.AddSigmoidLogits(row);
  }
  EXPECT_EQ(scores.tokens(), 2u) << "rows that are no numbers are left out";
  scores.AddSoftmaxLogits({0, -kInfinity, 0});  // An expert that is masked.
  EXPECT_NEAR(scores.probability_sums()[2], .5, 1e-6);
}

// Rows are summed in lanes: what is beyond the last whole ones counts, too.
TEST(ScoreAccumulatorTest, TakesRowsOfAnyWidth) {
  for (uint32_t experts = 1; experts < 40; ++experts) {
    std::vector<float> logits(experts, 0.0f);
    logits.back() = 1;
    ScoreAccumulator scores(experts);
    scores.AddSoftmaxLogits(logits);
    const double sum = experts - 1 + std::exp(1.0);
    EXPECT_NEAR(scores.probability_sums().back(), std::exp(1.0) / sum, 1e-6) << experts;
    EXPECT_NEAR(scores.ZLoss(), std::log(sum) * std::log(sum), 1e-5) << experts;
  }
}

}  // namespace
}  // namespace expertmesh::balance
