#include "common/balance/bias_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace expertmesh::balance {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;

BiasPolicy Unbounded(BiasRule rule, float rate) {
  BiasPolicy policy;
  policy.rule = rule;
  policy.rate = rate;
  policy.quality_budget = 1;
  policy.step_tokens = 1;
  return policy;
}

// As many assignments as tokens of top-1 routing would make.
LayerWindow Window(const std::vector<uint64_t>& assignments) {
  LayerWindow window;
  window.assignments = assignments;
  for (const uint64_t count : assignments) {
    window.tokens += count;
  }
  return window;
}

// Numbers of ../shared/MOE_SPEC.md 12.2.
TEST(BiasPolicyTest, SignAddsTheRateToWhoGetsLessThanTheMean) {
  LayerBias bias(Unbounded(BiasRule::kSign, 0.001f), std::vector<float>(4), std::vector<float>(4));
  EXPECT_EQ(bias.Step(Window({3, 1, 0, 4})), BiasOutcome::kStepped);
  EXPECT_THAT(bias.bias(), ElementsAre(-.001f, .001f, .001f, -.001f));
}

TEST(BiasPolicyTest, SignLeavesWhoGetsTheMean) {
  LayerBias bias(Unbounded(BiasRule::kSign, 0.001f), std::vector<float>(3), {.5f, .5f, .5f});
  bias.Step(Window({2, 1, 3}));
  EXPECT_THAT(bias.bias(), ElementsAre(.5f, FloatNear(.501f, 1e-7f), FloatNear(.499f, 1e-7f)));
}

TEST(BiasPolicyTest, ProportionalDoesNotDependOnHowMuchWasCounted) {
  LayerBias few(Unbounded(BiasRule::kProportional, 0.01f), std::vector<float>(4),
                std::vector<float>(4));
  LayerBias many = few;
  few.Step(Window({3, 1, 0, 4}));
  many.Step(Window({3000, 1000, 0, 4000}));
  EXPECT_THAT(few.bias(), ElementsAre(-.005f, .005f, .01f, -.01f));
  EXPECT_EQ(few.bias(), many.bias());
}

TEST(BiasPolicyTest, ClampAndDecayCountFromTheCheckpointsBias) {
  BiasPolicy policy = Unbounded(BiasRule::kSign, 0.1f);
  policy.clamp = 0.15f;
  LayerBias clamped(policy, {1, 2}, {1, 2});
  clamped.Step(Window({0, 2}));
  clamped.Step(Window({0, 2}));
  EXPECT_THAT(clamped.bias(), ElementsAre(FloatNear(1.15f, 1e-6f), FloatNear(1.85f, 1e-6f)));
  policy.decay = 0.5f;
  LayerBias decayed(policy, {1, 2}, {1.1f, 1.9f});
  decayed.Step(Window({1, 1}));
  EXPECT_THAT(decayed.bias(), ElementsAre(FloatNear(1.05f, 1e-6f), FloatNear(1.95f, 1e-6f)));
}

TEST(BiasPolicyTest, NothingMovesWhileFrozenPausedOrShortOfTokens) {
  BiasPolicy policy = Unbounded(BiasRule::kFrozen, 0.1f);
  LayerBias bias(policy, {0, 0}, {.25f, 0});
  EXPECT_EQ(bias.Step(Window({0, 9})), BiasOutcome::kFrozen);
  policy.rule = BiasRule::kSign;
  policy.paused = true;
  bias.SetPolicy(policy);
  EXPECT_EQ(bias.Step(Window({0, 9})), BiasOutcome::kPaused);
  policy.paused = false;
  policy.step_tokens = 10;
  bias.SetPolicy(policy);
  EXPECT_EQ(bias.Step(Window({0, 9})), BiasOutcome::kTooFewTokens);
  EXPECT_THAT(bias.bias(), ElementsAre(.25f, 0));
}

// A layer whose tokens change by one percent for each 0.01 of the first expert's bias.
LayerWindow Answer(const LayerBias& bias, const std::vector<uint64_t>& assignments) {
  LayerWindow window = Window(assignments);
  window.compared = window.tokens;
  window.changed = static_cast<uint64_t>(static_cast<double>(window.compared) *
                                         std::min(1.0, std::fabs(1.0 * bias.bias()[0])));
  return window;
}

TEST(BiasPolicyTest, TheQualityBudgetIsNeverPassed) {
  BiasPolicy policy = Unbounded(BiasRule::kSign, 0.5f);  // One step of it would change half of all.
  policy.quality_budget = 0.02f;
  LayerBias bias(policy, {0, 0}, {0, 0});
  const std::vector<uint64_t> skewed = {90'000, 10'000};
  BiasOutcome last = BiasOutcome::kFrozen;
  for (int step = 0; step < 60; ++step) {
    const LayerWindow window = Answer(bias, skewed);
    ASSERT_LE(window.changed, window.compared / 50) << step;
    last = bias.Step(window);
  }
  EXPECT_EQ(last, BiasOutcome::kHeldByBudget);
  EXPECT_GT(Answer(bias, skewed).changed, 1'400u) << "most of the budget is used";
}

TEST(BiasPolicyTest, TrafficThatChangesMakesItBackOffInOneStep) {
  BiasPolicy policy = Unbounded(BiasRule::kSign, 0.5f);
  policy.quality_budget = 0.02f;
  LayerBias bias(policy, {0, 0}, {-.2f, .2f});  // Ten times too far.
  EXPECT_EQ(bias.Step(Answer(bias, {90'000, 10'000})), BiasOutcome::kBackedOff);
  EXPECT_LE(Answer(bias, {90'000, 10'000}).changed, 2'000u);
}

TEST(BiasPolicyTest, WithoutABudgetNothingIsTried) {
  BiasPolicy policy = Unbounded(BiasRule::kSign, 0.5f);
  policy.quality_budget = 0;
  LayerBias bias(policy, {0, 0}, {0, 0});
  for (int step = 0; step < 3; ++step) {
    EXPECT_EQ(bias.Step(Answer(bias, {90'000, 10'000})), BiasOutcome::kHeldByBudget);
    EXPECT_TRUE(bias.AtCheckpoint());
  }
  bias.SetBias({-.2f, .2f});
  EXPECT_EQ(bias.Step(Answer(bias, {90'000, 10'000})), BiasOutcome::kBackedOff);
  EXPECT_TRUE(bias.AtCheckpoint());
}

TEST(BiasPolicyTest, NothingComparedIsNoLeaveToGoFurther) {
  BiasPolicy policy = Unbounded(BiasRule::kSign, 0.5f);
  policy.quality_budget = 0.02f;
  LayerBias bias(policy, {0, 0}, {-.25f, .25f});
  EXPECT_EQ(bias.Step(Window({9, 1})), BiasOutcome::kHeldByBudget);
  EXPECT_THAT(bias.bias(), ElementsAre(-.25f, .25f));
}

TEST(BiasPolicyTest, FewTokensAreEnoughToBackOffWhenTheyProveThatTheBudgetIsPassed) {
  BiasPolicy policy = Unbounded(BiasRule::kSign, 0.5f);
  policy.quality_budget = 0.02f;
  policy.step_tokens = 1'000'000;
  LayerBias bias(policy, {1, 2}, {1.5f, 1});
  const auto back_off = [&bias](uint64_t compared, uint64_t changed) {
    LayerWindow window;
    window.compared = compared;
    window.changed = changed;
    return bias.BackOff(window);
  };
  EXPECT_FALSE(back_off(0, 0));
  EXPECT_FALSE(back_off(10, 5)) << "may be chance: five of ten, and two errors are half";
  EXPECT_FALSE(back_off(10'000, 200)) << "that is the budget";
  EXPECT_THAT(bias.bias(), ElementsAre(1.5f, 1));
  EXPECT_TRUE(back_off(100, 50));
  // 0.85 of the budget over a half and two errors, sqrt(51) / 100 each.
  const float scale = .85f * .02f / (.5f + 2 * std::sqrt(51.0f) / 100);
  EXPECT_THAT(bias.bias(),
              ElementsAre(FloatNear(1 + .5f * scale, 1e-6f), FloatNear(2 - scale, 1e-6f)));
}

TEST(BiasPolicyTest, WhereNoStepsAreMadeOrNothingIsBoundedItDoesNotBackOff) {
  BiasPolicy policy = Unbounded(BiasRule::kSign, 0.5f);
  LayerWindow window;
  window.compared = window.changed = 1000;
  LayerBias unbounded(policy, {0, 0}, {1, 0});
  EXPECT_FALSE(unbounded.BackOff(window));
  policy.quality_budget = 0.02f;
  policy.paused = true;
  LayerBias paused(policy, {0, 0}, {1, 0});
  EXPECT_FALSE(paused.BackOff(window));
  policy.paused = false;
  policy.rule = BiasRule::kFrozen;
  LayerBias frozen(policy, {0, 0}, {1, 0});
  EXPECT_FALSE(frozen.BackOff(window));
  EXPECT_THAT(frozen.bias(), ElementsAre(1, 0));
}

TEST(BiasPolicyTest, ImpossiblePoliciesNameTheFieldTheValueAndTheRemedy) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  BiasPolicy policy;
  policy.rate = nan;
  EXPECT_THAT(ValidateBiasPolicy(policy).message(), HasSubstr("rate is nan; use 0 to"));
  policy = {};
  policy.clamp = -1;
  EXPECT_THAT(ValidateBiasPolicy(policy).message(), HasSubstr("clamp is -1"));
  policy = {};
  policy.decay = 1.5f;
  EXPECT_THAT(ValidateBiasPolicy(policy).message(), HasSubstr("decay is 1.5; use 0 to 1"));
  policy = {};
  policy.quality_budget = 2;
  EXPECT_THAT(ValidateBiasPolicy(policy).message(), HasSubstr("quality_budget is 2"));
  policy = {};
  policy.step_tokens = 0;
  EXPECT_THAT(ValidateBiasPolicy(policy).message(), HasSubstr("step_tokens is 0; use 1 or more"));
  EXPECT_TRUE(ValidateBiasPolicy({}).ok());
  EXPECT_THAT(ParseBiasRule("signed").status().message(), HasSubstr("'signed'; use frozen, sign"));
}

}  // namespace
}  // namespace expertmesh::balance
