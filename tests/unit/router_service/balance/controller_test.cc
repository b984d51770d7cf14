#include "router_service/balance/controller.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "tests/unit/router_service/balance/controller_fixture.h"

namespace expertmesh::balance_control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(ControllerTest, FrozenLeavesTheCheckpointsBias) {
  ASSERT_TRUE(Start().ok());
  Count(1, 100, 0);
  const uint64_t epoch = fleet_->view()->epoch();
  Tick();
  Tick();
  EXPECT_TRUE(Live(1).empty());
  EXPECT_EQ(fleet_->view()->epoch(), epoch);
  EXPECT_EQ(controller_->GetBalance().layers(0).outcome(), "frozen");
}

TEST_F(ControllerTest, SignMovesTheBiasOfLayersThatWereUsedAndEachStepIsAnEpoch) {
  options_.policy.rule = balance::BiasRule::kSign;
  ASSERT_TRUE(Start().ok());
  Tick();  // What was there before it began counts for nothing.
  const uint64_t epoch = fleet_->view()->epoch();
  Count(1, 100, 0);
  Tick();
  EXPECT_THAT(Live(1), ElementsAre(.25f, .75f));
  EXPECT_TRUE(Live(2).empty());
  EXPECT_EQ(fleet_->view()->epoch(), epoch + 1);
  Tick();
  EXPECT_EQ(fleet_->view()->epoch(), epoch + 1) << "nothing was counted since";
  Count(1, 100, 0);
  Tick();
  EXPECT_THAT(Live(1), ElementsAre(0, 1));
  EXPECT_EQ(controller_->GetBias(epoch)->layers(0).values(0), .5f);
  EXPECT_EQ(controller_->GetBias(epoch + 1)->layers(0).values(0), .25f);
  EXPECT_EQ(controller_->GetBias(0)->layers(0).values(0), 0);
}

TEST_F(ControllerTest, ChangesAreInForceWhenTheyReturn) {
  ASSERT_TRUE(Start().ok());
  const uint64_t before = fleet_->view()->epoch();
  const absl::StatusOr<v1::Balance> balance = SetBias(2, {1, -1});
  ASSERT_TRUE(balance.ok()) << balance.status();
  EXPECT_GT(balance->epoch(), before);
  EXPECT_THAT(Live(2), ElementsAre(1, -1));
  EXPECT_FALSE(balance->layers(1).at_checkpoint());
  EXPECT_EQ(balance->layers(1).bias_distance(), 1);
  v1::SetBalanceRequest reset;
  reset.set_reset_bias(true);
  ASSERT_TRUE(controller_->SetBalance(reset).ok());
  EXPECT_TRUE(Live(2).empty());
}

// As when the answer to the first was lost.
TEST_F(ControllerTest, WhatIsSetAgainIsNoNewEpoch) {
  ASSERT_TRUE(Start().ok());
  const uint64_t epoch = SetBias(2, {1, -1})->epoch();
  EXPECT_EQ(SetBias(2, {1, -1})->epoch(), epoch);
  v1::SetBalanceRequest reset;
  reset.set_reset_bias(true);
  const uint64_t after = controller_->SetBalance(reset)->epoch();
  EXPECT_GT(after, epoch);
  EXPECT_EQ(controller_->SetBalance(reset)->epoch(), after);
  v1::SetPlacementRequest automatic;
  automatic.mutable_policy()->set_automatic(true);
  EXPECT_EQ(controller_->SetPlacement(automatic)->epoch(), after);
  EXPECT_EQ(controller_->SetPlacement(automatic)->epoch(), after);
}

TEST_F(ControllerTest, APolicyAloneIsNoNewEpoch) {
  ASSERT_TRUE(Start().ok());
  const uint64_t before = fleet_->view()->epoch();
  ASSERT_TRUE(SetRule(v1::BALANCE_RULE_SIGN, {2}).ok());
  const v1::Balance balance = controller_->GetBalance();
  EXPECT_EQ(balance.layers(0).policy().rule(), v1::BALANCE_RULE_FROZEN);
  EXPECT_EQ(balance.layers(1).policy().rule(), v1::BALANCE_RULE_SIGN);
  EXPECT_EQ(balance.epoch(), before);
}

TEST_F(ControllerTest, WhatCannotBeIsRefusedAndNothingIsChanged) {
  ASSERT_TRUE(Start().ok());
  const uint64_t before = fleet_->view()->epoch();
  EXPECT_THAT(SetRule(v1::BALANCE_RULE_SIGN, {1, 9}).status().message(),
              HasSubstr("layer 9 is not a MoE layer"));
  EXPECT_THAT(SetRule(v1::BALANCE_RULE_SIGN, {1, 3}).status().message(),
              HasSubstr("layer 3 has no bias to steer: its tokens go to experts by their ids"));
  EXPECT_THAT(SetBias(1, {1, 2, 3}).status().message(), HasSubstr("has 3 values"));
  EXPECT_THAT(SetBias(1, {1, std::numeric_limits<float>::quiet_NaN()}).status().message(),
              HasSubstr("expert 1, is nan"));
  v1::SetBiasRequest foreign;
  foreign.mutable_bias()->set_outline("xyz");
  EXPECT_THAT(controller_->SetBias(foreign).status().message(), HasSubstr("another model"));
  EXPECT_THAT(controller_->GetBias(before + 1).status().message(), HasSubstr("is not remembered"));
  const v1::Balance balance = controller_->GetBalance();
  for (const v1::LayerBalance& layer : balance.layers()) {
    EXPECT_TRUE(layer.at_checkpoint());
    EXPECT_NE(layer.policy().rule(), v1::BALANCE_RULE_SIGN);
  }
  EXPECT_EQ(fleet_->view()->epoch(), before);
}

TEST_F(ControllerTest, BiasPolicyTermEpochAndCountsOutliveAKill) {
  options_.state_dir = folder_;
  ASSERT_TRUE(Start().ok());
  ASSERT_TRUE(SetBias(2, {1, -1}).ok());
  ASSERT_TRUE(SetRule(v1::BALANCE_RULE_PROPORTIONAL, {1}).ok());
  Count(1, 30, 12);
  for (int tick = 0; tick < 7; ++tick) {  // Counts are written now and then.
    Tick();
  }
  const uint64_t term = controller_->Summary().term();
  const uint64_t epoch = fleet_->view()->epoch();
  // As a kill leaves it: what is on the disk now.
  const std::string copy = folder_ + "_killed";
  std::filesystem::remove_all(copy);
  std::filesystem::copy(folder_, copy);
  Stop();
  {
    absl::MutexLock lock(&mutex_);
    counts_[1] = {0, 0, 0, 0, {0, 0}};
  }
  options_.state_dir = copy;
  options_.router_id = "me again";
  ASSERT_TRUE(Start().ok());
  EXPECT_THAT(Live(2), ElementsAre(1, -1));
  EXPECT_EQ(controller_->GetBalance().layers(0).policy().rule(), v1::BALANCE_RULE_PROPORTIONAL);
  EXPECT_GT(controller_->Summary().term(), term);
  // Epochs that were used since the state was written are left out, too.
  EXPECT_GT(fleet_->view()->epoch(), epoch + 10'000);
  v1::GetLoadRequest mesh;
  mesh.set_scope(v1::LOAD_SCOPE_MESH);
  EXPECT_THAT(controller_->GetLoad(mesh).layers(0).assignments(), ElementsAre(30, 12));
  EXPECT_THAT(controller_->GetLoad({}).layers(0).assignments(), ElementsAre(0, 0));
  Stop();
  std::filesystem::remove_all(copy);
}

TEST_F(ControllerTest, AStateOfAnotherModelIsRefused) {
  options_.state_dir = folder_;
  {
    StateStore store = *StateStore::Open(folder_);
    internal::v1::SavedState saved;
    saved.mutable_decision()->set_outline("xyz");
    ASSERT_TRUE(store.Save(saved.SerializeAsString()).ok());
  }
  const absl::Status status = Start();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("serves another model: its outline is 'xyz'"));
}

TEST_F(ControllerTest, ReportsOfFollowersCountAndMoveTheBias) {
  options_.policy.rule = balance::BiasRule::kSign;
  ASSERT_TRUE(Start().ok());
  Tick();
  internal::v1::ReportLoadRequest report;
  report.set_router_id("other");
  report.set_outline("abc");
  internal::v1::LayerCounts& counts = *report.add_layers();
  counts.set_layer(1);
  counts.set_tokens(0);
  counts.add_assignments(0);
  counts.add_assignments(0);
  ASSERT_TRUE(controller_->Report(report).ok());
  Tick();
  counts.set_tokens(50);
  counts.set_assignments(1, 50);
  ASSERT_TRUE(controller_->Report(report).ok());
  Tick();
  EXPECT_THAT(Live(1), ElementsAre(.75f, .25f));
  EXPECT_EQ(controller_->GetBalance().routers_size(), 2);
  report.set_outline("xyz");
  EXPECT_THAT(controller_->Report(report).status().message(), HasSubstr("another model"));
}

TEST_F(ControllerTest, TellsFollowersWhatIsInForce) {
  ASSERT_TRUE(Start().ok());
  ASSERT_TRUE(SetBias(2, {1, -1}).ok());
  uint64_t version = 0;
  const internal::v1::Decision decision = controller_->DecisionInForce(&version);
  EXPECT_EQ(decision.epoch(), fleet_->view()->epoch());
  EXPECT_EQ(decision.term(), fleet_->view()->version().term);
  ASSERT_EQ(decision.layers_size(), 2);
  EXPECT_EQ(decision.layers(0).bias_size(), 0) << "the checkpoint's is not told";
  EXPECT_THAT(decision.layers(1).bias(), ElementsAre(1, -1));
  fleet_->SetAddresses({});
  uint64_t after = 0;
  controller_->DecisionInForce(&after);
  EXPECT_EQ(after, version);
  internal::v1::FollowRequest follow;
  EXPECT_THAT(controller_->CheckFollower(follow).message(), HasSubstr("another model"));
  follow.set_outline("abc");
  EXPECT_TRUE(controller_->CheckFollower(follow).ok());
}

}  // namespace
}  // namespace expertmesh::balance_control
