#include "router_service/balance/controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/fake_checkpoint.h"

namespace expertmesh::balance_control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Leads to no router; what a follower hears, the test says.
class FakeLinks final : public AuthorityLinks {
 public:
  std::unique_ptr<AuthorityLink> Connect(const std::string&, const internal::v1::FollowRequest&,
                                         AuthorityObserver* observer) override {
    observer_ = observer;
    return std::make_unique<Link>(this);
  }
  AuthorityObserver& observer() { return *observer_; }
  std::vector<internal::v1::ReportLoadRequest> reports() {
    absl::MutexLock lock(&mutex_);
    return reports_;
  }

 private:
  struct Link final : AuthorityLink {
    explicit Link(FakeLinks* owner) : owner(owner) {}
    void Report(const internal::v1::ReportLoadRequest& counts) override {
      absl::MutexLock lock(&owner->mutex_);
      owner->reports_.push_back(counts);
    }
    FakeLinks* const owner;
  };

  AuthorityObserver* observer_ = nullptr;
  absl::Mutex mutex_;
  std::vector<internal::v1::ReportLoadRequest> reports_ ABSL_GUARDED_BY(mutex_);
};

// Layers 1 and 2 of two experts can be steered, layer 3 cannot.
SteeredModel Model() {
  SteeredModel model;
  model.outline = "abc";
  MoeLayerDescription description;
  RoutingOptions& routing = description.routing;
  routing.num_experts = 2;
  routing.top_k = 1;
  model.layers[1] = MakeSteeredLayer(description, {.5f, .5f});
  model.layers[2] = MakeSteeredLayer(description, {});
  routing.choice = Choice::kHash;
  model.layers[3] = MakeSteeredLayer(description, {});
  return model;
}

class ControllerTest : public testing::Test {
 protected:
  static constexpr absl::Duration kInterval = absl::Seconds(1);

  ControllerTest() {
    mesh::FleetOptions fleet;
    fleet.encodings = *mesh::WireEncodings::Parse("auto", "auto", Dtype::kF32);
    fleet.biases = std::make_shared<const mesh::SelectBiases>();
    fleet_ =
        std::make_unique<mesh::Fleet>(std::make_shared<FakeCheckpoint>(FakeCheckpointOptions()),
                                      std::move(fleet), &metrics_, &transport_, &timers_, &clock_);
    const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing::TempDir() + "/controller_" + test.name();
    std::filesystem::remove_all(folder_);
    options_.router_id = "me";
    options_.interval = kInterval;
    options_.policy.step_tokens = 10;
    options_.policy.quality_budget = 1;
    options_.policy.rate = .25f;
    counts_[1] = {0, 0, 0, 0, {0, 0}};
    counts_[2] = counts_[1];
    counts_[3] = counts_[1];
  }
  ~ControllerTest() override {
    Stop();
    std::filesystem::remove_all(folder_);
  }

  absl::Status Start(const std::string& follow = "") {
    authority_ = std::make_unique<FlagAuthority>(follow);
    absl::StatusOr<std::unique_ptr<Controller>> controller =
        Controller::Create(options_, Model(),
                           [this] {
                             absl::MutexLock lock(&mutex_);
                             ++reads_;
                             return counts_;
                           },
                           {authority_.get(), nullptr, nullptr, &links_, fleet_.get(), &clock_});
    if (!controller.ok()) {
      return controller.status();
    }
    controller_ = *std::move(controller);
    subscription_ = controller_->Subscribe([this] {
      absl::MutexLock lock(&mutex_);
      told_ = reads_;
    });
    clock_.AwaitWaiters(2);  // The controller, after the first tick, and the fleet's timers.
    return absl::OkStatus();
  }
  void Stop() {
    subscription_.reset();
    controller_.reset();
  }

  // `condition` may change whenever something is told.
  template <typename Condition>
  void Await(Condition condition) {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&condition));
  }
  // A tick begins with a reading of the counts, and tells when it is over.
  void Tick() {
    uint64_t before = 0;
    {
      absl::MutexLock lock(&mutex_);
      before = reads_;
    }
    clock_.Advance(kInterval);
    Await([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return told_ > before; });
  }
  void Count(uint32_t layer, uint64_t first, uint64_t second) {
    absl::MutexLock lock(&mutex_);
    LayerCounts& counts = counts_[layer];
    counts.tokens += first + second;
    counts.assignments[0] += first;
    counts.assignments[1] += second;
  }
  std::vector<float> Live(uint32_t layer) const {
    const absl::Span<const float> live = view_bias(layer).live;
    return {live.begin(), live.end()};
  }
  gate::SelectBias view_bias(uint32_t layer) const {
    view_ = fleet_->view();
    return view_->SelectBias(layer);
  }
  absl::StatusOr<v1::Balance> SetRule(v1::BalanceRule rule, std::vector<uint32_t> layers = {}) {
    v1::SetBalanceRequest request;
    request.mutable_layers()->Add(layers.begin(), layers.end());
    request.mutable_policy()->set_rule(rule);
    return controller_->SetBalance(request);
  }
  absl::StatusOr<v1::Balance> SetBias(uint32_t layer, const std::vector<float>& values) {
    v1::SetBiasRequest request;
    v1::LayerBias& bias = *request.mutable_bias()->add_layers();
    bias.set_layer(layer);
    bias.mutable_values()->Add(values.begin(), values.end());
    return controller_->SetBias(request);
  }

  FakeClock clock_;
  TimerQueue timers_{&clock_};
  prometheus::Registry registry_;
  metrics::RouterMetrics metrics_{registry_};
  struct NoTransport final : Transport {
    std::unique_ptr<NodeConnection> Connect(std::string, NodeObserver*) override { return nullptr; }
  } transport_;
  std::unique_ptr<mesh::Fleet> fleet_;
  FakeLinks links_;
  ControllerOptions options_;
  std::string folder_;
  std::unique_ptr<const Authority> authority_;

  absl::Mutex mutex_;
  LoadCounts counts_ ABSL_GUARDED_BY(mutex_);
  uint64_t reads_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t told_ ABSL_GUARDED_BY(mutex_) = 0;  // reads_, when something was told last.
  mutable std::shared_ptr<const mesh::MeshView> view_;
  std::unique_ptr<Controller> controller_;
  std::shared_ptr<void> subscription_;
};

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
