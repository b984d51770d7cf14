// A controller that follows the one of another router.
#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "tests/unit/router_service/balance/controller_fixture.h"

namespace expertmesh::balance_control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What an authority says to its followers, of epoch `epoch`.
internal::v1::Decision Said(uint64_t term, uint64_t epoch, const std::vector<float>& bias) {
  internal::v1::Decision decision;
  decision.set_term(term);
  decision.set_epoch(epoch);
  decision.set_authority_id("boss");
  decision.set_outline("abc");
  internal::v1::LayerDecision& layer = *decision.add_layers();
  layer.set_layer(2);
  layer.mutable_policy()->set_rule(v1::BALANCE_RULE_SIGN);
  layer.mutable_bias()->Add(bias.begin(), bias.end());
  return decision;
}

class FollowingTest : public ControllerTest {
 protected:
  void Hear(const internal::v1::Decision& decision, uint64_t until) {
    links_.observer().OnDecision(decision);
    Await([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return fleet_->view()->epoch() == until; });
  }
};

TEST_F(FollowingTest, ServesOnTheEpochAndTheBiasOfItsAuthority) {
  ASSERT_TRUE(Start("boss:1").ok());
  EXPECT_FALSE(controller_->Summary().alive()) << "not heard yet";
  Hear(Said(3, 41, {4, 5}), 41);
  EXPECT_THAT(Live(2), ElementsAre(4, 5));
  internal::v1::Decision heartbeat;
  heartbeat.set_term(3);
  heartbeat.set_epoch(44);
  heartbeat.set_authority_id("boss");
  heartbeat.set_outline("abc");
  heartbeat.set_heartbeat(true);
  Hear(heartbeat, 44);
  EXPECT_THAT(Live(2), ElementsAre(4, 5));
  EXPECT_TRUE(controller_->Summary().alive());
  EXPECT_EQ(controller_->Summary().role(), v1::BALANCE_ROLE_FOLLOWER);
}

TEST_F(FollowingTest, ReportsItsTotals) {
  ASSERT_TRUE(Start("boss:1").ok());
  Hear(Said(3, 41, {4, 5}), 41);
  Count(1, 3, 4);
  Tick();
  const internal::v1::ReportLoadRequest report = links_.reports().back();
  EXPECT_EQ(report.router_id(), "me");
  EXPECT_EQ(report.epoch(), 41u);
  EXPECT_THAT(report.layers(0).assignments(), ElementsAre(3, 4));
}

TEST_F(FollowingTest, AnAuthorityThatIsAwayIsSaidAndTheLastEpochServesOn) {
  ASSERT_TRUE(Start("boss:1").ok());
  Hear(Said(3, 41, {4, 5}), 41);
  links_.observer().OnDisconnected(absl::UnavailableError("the line is cut"));
  for (int second = 0; second < 6; ++second) {
    Tick();
  }
  EXPECT_THAT(Live(2), ElementsAre(4, 5));
  const v1::BalanceSummary summary = controller_->Summary();
  EXPECT_FALSE(summary.alive());
  EXPECT_THAT(summary.reason(),
              HasSubstr("the line is cut; this router serves on epoch 41 of term 3"));
}

TEST_F(FollowingTest, AnOldAuthorityIsNotFollowed) {
  ASSERT_TRUE(Start("boss:1").ok());
  Hear(Said(3, 41, {4, 5}), 41);
  links_.observer().OnDecision(Said(2, 99, {9, 9}));
  Hear(Said(4, 7, {1, 1}), 7);  // Comes after it, and is of a later term.
  EXPECT_THAT(Live(2), ElementsAre(1, 1));
  links_.observer().OnDecision(Said(3, 50, {9, 9}));
  Tick();
  EXPECT_THAT(Live(2), ElementsAre(1, 1));
}

TEST_F(FollowingTest, DecidesNothingItself) {
  ASSERT_TRUE(Start("boss:1").ok());
  const absl::Status status = SetBias(2, {1, 1}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("follows the one at boss:1"));
  EXPECT_FALSE(controller_->CheckFollower({}).ok());
}

}  // namespace
}  // namespace expertmesh::balance_control
