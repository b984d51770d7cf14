// What a tick of automatic placement comes to, by what the nodes of a real fleet are just doing.
#include "router_service/balance/placement_steering.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "router_service/mesh/node_link.h"
#include "tests/support/fake_checkpoint.h"
#include "tests/support/scripted_nodes.h"
#include "tests/support/too_long.h"

namespace expertmesh::balance_control {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kLayer = 1;
constexpr uint32_t kNumExperts = 6;
constexpr uint64_t kExpertBytes = 100;

SteeredModel Model() {
  MoeLayerDescription description;
  description.routing.num_experts = kNumExperts;
  description.routing.top_k = 1;
  SteeredModel model;
  model.layers[kLayer] = MakeSteeredLayer(description, {});
  model.layers[kLayer].expert_parameters = kExpertBytes;
  return model;
}

// Routers follow a plan with half of the experts on each of two nodes, which suits the load.
class PlacementSteeringTest : public testing::Test {
 protected:
  PlacementSteeringTest() {
    mesh::FleetOptions options;
    options.encodings = *mesh::WireEncodings::Parse("auto", "auto", Dtype::kF32);
    options.biases = std::make_shared<const mesh::SelectBiases>();
    fleet_ =
        std::make_unique<mesh::Fleet>(std::make_shared<FakeCheckpoint>(FakeCheckpointOptions()),
                                      std::move(options), &metrics_, &nodes_, &timers_, &clock_);
    fleet_->SetAddresses({"a:1", "b:1"});
    Say("a:1", {0, 1, 2});
    Say("b:1", {3, 4, 5});
    steering_ = std::make_unique<PlacementSteering>(
        &model_, moves::MoverOptions(), fleet_.get(), [](uint64_t, const moves::PlanPtr&) {},
        &clock_);
    balance::PlacementPlan plan{{"a:1", "b:1"}, {{kLayer, {}}}};
    for (uint32_t expert = 0; expert < kNumExperts; ++expert) {
      plan.layers[0].experts.push_back({{expert / 3, 1.0f}});
    }
    steering_->Decide(1, std::make_shared<const balance::PlacementPlan>(plan));
    loads_[kLayer].tokens = 6000;
    loads_[kLayer].assignments.assign(kNumExperts, 1000);
    policy_.automatic = true;
  }
  ~PlacementSteeringTest() override {
    steering_.reset();
    fleet_->Close();
  }

  // A node of that name has room for all experts, and holds these.
  void Say(const std::string& address, const std::vector<uint32_t>& experts,
           v1::NodeState state = v1::NODE_STATE_READY) {
    v1::NodeDescription description;
    description.set_node_id(address);
    description.set_state(state);
    description.set_fingerprint(FakeCheckpoint(FakeCheckpointOptions()).fingerprint());
    description.mutable_memory()->set_weights_bytes(kExpertBytes * experts.size());
    description.mutable_memory()->set_limit_bytes(kExpertBytes * kNumExperts);
    v1::HostedExperts& hosted = *description.add_hosted();
    hosted.set_layer(kLayer);
    hosted.mutable_experts()->Add(experts.begin(), experts.end());
    hosted.set_slice_count(1);
    nodes_.Say(address, description);
  }
  // Ticks; whether a move begins of it.
  bool Moves() {
    steering_->Tick(loads_, policy_);
    return steering_->Describe(false).moves().phase() != "idle";
  }
  std::string Reason() const { return steering_->Describe(false).last_proposal().reason(); }
  v1::NodeLink LinkOf(int node) const { return fleet_->Topology().nodes(node).link(); }

  FakeClock clock_;
  TimerQueue timers_{&clock_};
  prometheus::Registry registry_;
  metrics::RouterMetrics metrics_{registry_};
  ScriptedNodes nodes_;
  const SteeredModel model_ = Model();
  LoadCounts loads_;
  PlacementPolicy policy_;
  std::unique_ptr<mesh::Fleet> fleet_;
  std::unique_ptr<PlacementSteering> steering_;
};

TEST_F(PlacementSteeringTest, APlanThatSuitsTheLoadIsKeptAndOneThatDoesNotIsLeft) {
  EXPECT_FALSE(Moves()) << Reason();
  clock_.Advance(policy_.interval);
  loads_[kLayer].assignments = {4000, 2000, 2000, 10, 10, 10};
  EXPECT_TRUE(Moves()) << Reason();
}

TEST_F(PlacementSteeringTest, ANodeThatIsDownIsAwaited) {
  nodes_.Lose("b:1");
  EXPECT_FALSE(Moves());
  EXPECT_THAT(Reason(), HasSubstr("node b:1 is down"));
}

TEST_F(PlacementSteeringTest, ANodeThatLoadsAfterARestartIsAwaited) {
  nodes_.Lose("b:1");
  Say("b:1", {3}, v1::NODE_STATE_LOADING);
  EXPECT_FALSE(Moves());
  EXPECT_THAT(Reason(), HasSubstr("node b:1 loads what its flags say"));
  // One that has failed to load is not: its experts are needed.
  clock_.Advance(policy_.interval);
  Say("b:1", {3}, v1::NODE_STATE_FAILED);
  EXPECT_TRUE(Moves()) << Reason();
}

TEST_F(PlacementSteeringTest, ANodeThatIsEjectedIsAwaited) {
  for (int fault = 0; fault < 20; ++fault) {
    fleet_->Holdings()[1].link->CountFault(mesh::NodeFault::kChecksum);
  }
  const absl::Time give_up = Clock::Real()->Now() + kTooLong;
  while (LinkOf(1) != v1::NODE_LINK_EJECTED && Clock::Real()->Now() < give_up) {
    clock_.Advance(absl::Milliseconds(50));  // Links are judged by this clock.
    std::this_thread::yield();
  }
  ASSERT_EQ(LinkOf(1), v1::NODE_LINK_EJECTED);
  EXPECT_FALSE(Moves());
  EXPECT_THAT(Reason(), HasSubstr("node b:1 is ejected"));
}

TEST_F(PlacementSteeringTest, ANodeThatDrainsKeepsItsCopies) {
  ASSERT_TRUE(fleet_->Drain("b:1", /*resume=*/false).ok());
  ASSERT_EQ(LinkOf(1), v1::NODE_LINK_DRAINING);
  EXPECT_FALSE(Moves()) << Reason();
  // An operator who asks for a plan wants to know how the mesh does without it.
  EXPECT_EQ(steering_->Propose(loads_, policy_)->bytes_loaded(), 3 * kExpertBytes);
  EXPECT_TRUE(steering_->Apply(nullptr, loads_, policy_).ok());
  EXPECT_NE(steering_->Describe(false).moves().phase(), "idle");
}

}  // namespace
}  // namespace expertmesh::balance_control
