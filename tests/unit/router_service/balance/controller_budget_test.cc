// A bias that an operator sets, and the quality budget.
#include <gmock/gmock.h>

#include <vector>

#include "tests/unit/router_service/balance/controller_fixture.h"

namespace expertmesh::balance_control {
namespace {

using ::testing::ElementsAre;

// Not only after an interval, nor when there are tokens enough for a step.
TEST_F(ControllerTest, ABiasThatIsSetAndPassesTheBudgetIsTakenBackAsSoonAsThatIsMeasured) {
  options_.interval = absl::Minutes(1);
  options_.policy.rule = balance::BiasRule::kSign;
  options_.policy.quality_budget = .02f;
  options_.policy.step_tokens = 100'000;
  ASSERT_TRUE(Start().ok());
  ASSERT_TRUE(SetBias(1, {1.5f, -.5f}).ok());
  CountHalfChanged(1, 1000);
  clock_.AwaitWaiters(2);  // It waits for the time to look at the counts.
  EXPECT_THAT(Live(1), ElementsAre(1.5f, -.5f));
  const uint64_t epoch = fleet_->view()->epoch();
  clock_.Advance(absl::Milliseconds(100));
  Await([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return fleet_->view()->epoch() > epoch; });
  // 1.7 % of the half that was seen, and of what it may be with that many tokens.
  EXPECT_GT(Live(1)[0], .5f + .03f);
  EXPECT_LT(Live(1)[0], .5f + .034f);
  EXPECT_EQ(controller_->GetBalance().layers(0).outcome(), "backed off");
}

TEST_F(ControllerTest, WhereNoStepsAreMadeABiasStaysAsItWasSet) {
  options_.policy.quality_budget = .02f;
  ASSERT_TRUE(Start().ok());
  ASSERT_TRUE(SetBias(1, {1.5f, -.5f}).ok());
  for (int tick = 0; tick < 3; ++tick) {
    CountHalfChanged(1, 1000);
    Tick();
  }
  EXPECT_THAT(Live(1), ElementsAre(1.5f, -.5f));
  EXPECT_EQ(controller_->GetBalance().layers(0).changed_tokens(), 1500u);
}

}  // namespace
}  // namespace expertmesh::balance_control
