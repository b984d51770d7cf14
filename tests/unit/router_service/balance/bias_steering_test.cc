#include "router_service/balance/bias_steering.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace expertmesh::balance_control {
namespace {

using balance::BiasOutcome;
using ::testing::ElementsAre;

constexpr uint32_t kLayer = 1;

class BiasSteeringTest : public testing::Test {
 protected:
  BiasSteeringTest() {
    MoeLayerDescription description;
    description.routing.num_experts = 2;
    description.routing.top_k = 1;
    model_.layers[kLayer] = MakeSteeredLayer(description, {});
    policy_.rule = balance::BiasRule::kSign;
    policy_.rate = 0.25f;
    policy_.step_tokens = 10;
    counts_[kLayer].assignments = {0, 0};
  }

  void Start(float quality_budget) {
    policy_.quality_budget = quality_budget;
    steering_.Reset({{kLayer, {policy_, {0, 0}}}});
  }
  // So many more tokens, all of which go to the first expert.
  void Count(uint64_t tokens, uint64_t changed) {
    LayerCounts& counts = counts_[kLayer];
    counts.tokens += tokens;
    counts.assignments[0] += tokens;
    counts.compared += tokens;
    counts.changed += changed;
  }
  // One step after so many more.
  bool StepAfter(uint64_t tokens, uint64_t changed = 0) {
    Count(tokens, changed);
    return steering_.Step(counts_);
  }
  std::vector<float> Bias() const { return steering_.Layers().at(kLayer).bias; }

  SteeredModel model_;
  balance::BiasPolicy policy_;
  BiasSteering steering_{&model_};
  LoadCounts counts_;
};

TEST_F(BiasSteeringTest, WhatWasCountedBeforeItBeganCountsForNothing) {
  Start(/*quality_budget=*/1);
  EXPECT_FALSE(StepAfter(1000));
  EXPECT_FALSE(StepAfter(0));
  EXPECT_EQ(steering_.outcome(kLayer), BiasOutcome::kTooFewTokens);
  EXPECT_TRUE(StepAfter(10));
  EXPECT_THAT(Bias(), ElementsAre(-.25f, .25f));
}

TEST_F(BiasSteeringTest, TokensAddUpUntilThereAreEnoughForAStep) {
  Start(/*quality_budget=*/1);
  StepAfter(0);
  EXPECT_FALSE(StepAfter(6));
  EXPECT_TRUE(StepAfter(6));
}

TEST_F(BiasSteeringTest, WithABudgetWhatIsUnderWayWhenTheBiasChangesIsNotCounted) {
  Start(/*quality_budget=*/0.5f);
  StepAfter(0);
  EXPECT_TRUE(StepAfter(100));
  const std::vector<float> first = Bias();
  EXPECT_FALSE(StepAfter(100)) << "these may have been chosen for by the bias before";
  EXPECT_EQ(Bias(), first);
  EXPECT_TRUE(StepAfter(100));
}

TEST_F(BiasSteeringTest, ABiasThatIsSetIsGoneOnFrom) {
  Start(/*quality_budget=*/1);
  steering_.SetBias(kLayer, {.5f, -.5f}, counts_);
  EXPECT_FALSE(steering_.OnTrial()) << "nothing is bounded";
  StepAfter(0);
  StepAfter(10);
  EXPECT_THAT(Bias(), ElementsAre(.25f, -.25f));
}

TEST_F(BiasSteeringTest, ABiasThatIsSetAndPassesTheBudgetIsTakenBackAtTheFirstStepThatHasCounts) {
  policy_.step_tokens = 10'000;
  Start(/*quality_budget=*/0.02f);
  EXPECT_FALSE(StepAfter(5000)) << "long before, and nothing changed";
  steering_.SetBias(kLayer, {.5f, -.5f}, counts_);
  EXPECT_FALSE(StepAfter(0));
  EXPECT_TRUE(StepAfter(100, 50));
  EXPECT_EQ(steering_.outcome(kLayer), BiasOutcome::kBackedOff);
  EXPECT_LT(Bias()[0], .5f * .02f / .5f);
  EXPECT_GT(Bias()[0], 0);
  EXPECT_FALSE(StepAfter(100, 50)) << "these may have been chosen for by the bias before";
}

TEST_F(BiasSteeringTest, ItIsTakenBackBetweenStepsToo) {
  Start(/*quality_budget=*/0.02f);
  EXPECT_FALSE(steering_.OnTrial());
  steering_.SetBias(kLayer, {.5f, -.5f}, counts_);
  EXPECT_TRUE(steering_.OnTrial());
  EXPECT_FALSE(steering_.BackOff(counts_));
  Count(100, 50);
  EXPECT_TRUE(steering_.BackOff(counts_));
  EXPECT_FALSE(steering_.OnTrial());
  Count(100, 50);
  EXPECT_FALSE(steering_.BackOff(counts_)) << "once: the rest is for steps";
  EXPECT_FALSE(StepAfter(0)) << "what is under way is not counted";
}

TEST_F(BiasSteeringTest, OneThatKeepsWithinTheBudgetStaysUntilAStepAndIsNoLongerOnTrial) {
  Start(/*quality_budget=*/0.5f);
  steering_.SetBias(kLayer, {.5f, -.5f}, counts_);
  EXPECT_FALSE(StepAfter(100, 10));
  EXPECT_THAT(Bias(), ElementsAre(.5f, -.5f));
  EXPECT_TRUE(StepAfter(100, 10));
  EXPECT_FALSE(steering_.OnTrial());
}

TEST_F(BiasSteeringTest, WhatWasSetWhileFrozenIsOnTrialOnceStepsAreMade) {
  policy_.rule = balance::BiasRule::kFrozen;
  Start(/*quality_budget=*/0.02f);
  steering_.SetBias(kLayer, {.5f, -.5f}, counts_);
  EXPECT_FALSE(steering_.OnTrial());
  for (int step = 0; step < 3; ++step) {
    EXPECT_FALSE(StepAfter(100, 90));
  }
  EXPECT_THAT(Bias(), ElementsAre(.5f, -.5f));
  policy_.rule = balance::BiasRule::kSign;
  steering_.SetPolicy(kLayer, policy_);
  EXPECT_TRUE(steering_.OnTrial());
  EXPECT_TRUE(StepAfter(0));
  EXPECT_EQ(steering_.outcome(kLayer), BiasOutcome::kBackedOff);
}

}  // namespace
}  // namespace expertmesh::balance_control
