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
  // One step after so many more tokens, all of which go to the first expert.
  bool StepAfter(uint64_t tokens) {
    LayerCounts& counts = counts_[kLayer];
    counts.tokens += tokens;
    counts.assignments[0] += tokens;
    counts.compared += tokens;
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
  steering_.SetBias(kLayer, {.5f, -.5f});
  StepAfter(0);
  StepAfter(10);
  EXPECT_THAT(Bias(), ElementsAre(.25f, -.25f));
}

}  // namespace
}  // namespace expertmesh::balance_control
