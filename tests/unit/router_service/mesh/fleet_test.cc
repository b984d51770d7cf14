#include "router_service/mesh/fleet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/fake_checkpoint.h"
#include "tests/support/scripted_nodes.h"

namespace expertmesh::mesh {
namespace {

using testing::ElementsAre;

class FleetTest : public testing::Test {
 protected:
  static constexpr uint32_t kLayer = 1;

  FleetTest() {
    auto biases = std::make_shared<SelectBiases>();
    (*biases)[kLayer] = {1, 2, 3, 4, 5, 6};
    FleetOptions options;
    options.encodings = *WireEncodings::Parse("auto", "auto", Dtype::kF32);
    options.biases = std::move(biases);
    fleet_ = std::make_unique<Fleet>(std::make_shared<FakeCheckpoint>(FakeCheckpointOptions()),
                                     std::move(options), &metrics_, &transport_, &timers_, &clock_);
  }

  // The node at `address` says that it is `node_id` and holds these experts of kLayer.
  void Up(const std::string& address, const std::string& node_id,
          const std::vector<uint32_t>& experts, const std::string& instance_id = "") {
    v1::NodeDescription description;
    description.set_node_id(node_id);
    description.set_instance_id(instance_id);
    description.set_state(v1::NODE_STATE_READY);
    description.set_fingerprint(FakeCheckpoint(FakeCheckpointOptions()).fingerprint());
    v1::HostedExperts& hosted = *description.add_hosted();
    hosted.set_layer(kLayer);
    hosted.mutable_experts()->Add(experts.begin(), experts.end());
    hosted.set_slice_count(1);
    transport_.Say(address, description);
  }

  std::vector<std::string> Addresses() const {
    std::vector<std::string> addresses;
    const v1::Topology topology = fleet_->Topology();
    for (const v1::TopologyNode& node : topology.nodes()) {
      addresses.push_back(node.address());
    }
    return addresses;
  }
  // Nodes that may serve an expert of the layer.
  std::vector<NodeIndex> Serving(uint32_t expert) const {
    const ExpertReplicas& replicas = (*fleet_->view()->placement().Layer(kLayer))[expert];
    return replicas.missing() ? std::vector<NodeIndex>() : replicas.slices[0];
  }
  // Until the nodes that left are let go.
  void AwaitReaped(const std::vector<std::string>& addresses) {
    absl::Mutex mutex;
    bool reaped = false;
    const uint64_t id = fleet_->Subscribe([&] {
      const bool now = Addresses() == addresses;
      absl::MutexLock lock(&mutex);
      reaped = reaped || now;
    });
    clock_.AwaitWaiters(1);
    clock_.Advance(absl::Seconds(1));
    {
      absl::MutexLock lock(&mutex);
      mutex.Await(absl::Condition(&reaped));
    }
    fleet_->Unsubscribe(id);
  }

  FakeClock clock_;
  TimerQueue timers_{&clock_};
  prometheus::Registry registry_;
  metrics::RouterMetrics metrics_{registry_};
  ScriptedNodes transport_;
  std::unique_ptr<Fleet> fleet_;
};

TEST_F(FleetTest, EachChangeMakesAViewOfTheNextEpochAndLeavesOlderOnesAlone) {
  const std::shared_ptr<const MeshView> before = fleet_->view();
  fleet_->SetAddresses({"a:1"});
  Up("a:1", "one", {0, 1});
  const std::shared_ptr<const MeshView> after = fleet_->view();
  EXPECT_GT(after->epoch(), before->epoch());
  EXPECT_TRUE((*before->placement().Layer(kLayer))[0].missing());
  EXPECT_THAT(Serving(0), ElementsAre(0));
  EXPECT_NE(after->node(0).link, nullptr);
  for (const auto& view : {before, after}) {
    EXPECT_THAT(view->SelectBias(kLayer).checkpoint, ElementsAre(1, 2, 3, 4, 5, 6));
    EXPECT_TRUE(view->SelectBias(kLayer).live.empty());
    EXPECT_TRUE(view->SelectBias(3).checkpoint.empty());
  }
}

TEST_F(FleetTest, SummaryCountsNodesByState) {
  fleet_->SetAddresses({"a:1", "b:1", "c:1"});
  Up("a:1", "one", {0, 1, 2, 3, 4, 5});
  Up("b:1", "two", {0});
  ASSERT_TRUE(fleet_->Drain("b:1", false).ok());
  MeshSummary summary = fleet_->Summary();
  EXPECT_EQ(summary.epoch, fleet_->view()->epoch());
  EXPECT_EQ(summary.nodes[LinkState::kUp], 1u);
  EXPECT_EQ(summary.nodes[LinkState::kDraining], 1u);
  EXPECT_EQ(summary.nodes[LinkState::kDown], 1u);
  EXPECT_EQ(summary.nodes[LinkState::kRefused], 0u);
}

TEST_F(FleetTest, ANodeThatComesBackUnderAnotherAddressKeepsItsPlaceAndIsStillDrained) {
  fleet_->SetAddresses({"a:1", "b:1"});
  Up("a:1", "one", {0});
  Up("b:1", "two", {1});
  ASSERT_TRUE(fleet_->Drain("a:1", false).ok());
  transport_.Lose("a:1");
  fleet_->SetAddresses({"b:1", "c:1"});
  Up("c:1", "one", {0});
  EXPECT_THAT(Serving(0), ElementsAre(0));
  EXPECT_THAT(Serving(1), ElementsAre(1));
  AwaitReaped({"c:1", "b:1"});
  const v1::TopologyNode moved = fleet_->Topology().nodes(0);
  EXPECT_EQ(moved.link(), v1::NODE_LINK_DRAINING);
  EXPECT_EQ(moved.disconnects(), 1u);
  EXPECT_EQ(fleet_->Drain("a:1", true).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(fleet_->Drain("c:1", true)->link(), v1::NODE_LINK_UP);
}

TEST_F(FleetTest, TwoNodesOfOneNameThatAreBothUpAreTwoNodes) {
  fleet_->SetAddresses({"a:1", "b:1"});
  Up("a:1", "one", {0});
  Up("b:1", "one", {0});
  EXPECT_THAT(Addresses(), ElementsAre("a:1", "b:1"));
  EXPECT_THAT(Serving(0), ElementsAre(0, 1));
}

TEST_F(FleetTest, OneProcessUnderTwoAddressesIsNoReplicaOfItself) {
  fleet_->SetAddresses({"a:1", "b:1"});
  Up("a:1", "one", {0}, "instance");
  Up("b:1", "one", {0}, "instance");
  EXPECT_THAT(Serving(0), ElementsAre(0));
  const v1::TopologyNode twin = fleet_->Topology().nodes(1);
  EXPECT_EQ(twin.link(), v1::NODE_LINK_REFUSED);
  EXPECT_THAT(twin.reason(), testing::HasSubstr("a:1"));
  // One way to it is enough.
  transport_.Lose("a:1");
  EXPECT_THAT(Serving(0), ElementsAre(1));
  EXPECT_EQ(fleet_->Topology().nodes(1).link(), v1::NODE_LINK_UP);
  Up("a:1", "one", {0}, "instance");
  EXPECT_EQ(fleet_->Topology().nodes(1).link(), v1::NODE_LINK_REFUSED);
  // Started again, it is another one.
  Up("b:1", "one", {0}, "later");
  EXPECT_THAT(Serving(0), ElementsAre(0, 1));
}

TEST_F(FleetTest, AnAddressThatWasLetGoIsConnectedToAgain) {
  fleet_->SetAddresses({"a:1", "b:1"});
  fleet_->SetAddresses({"b:1"});
  AwaitReaped({"b:1"});
  fleet_->SetAddresses({"a:1", "b:1"});
  EXPECT_THAT(Addresses(), ElementsAre("a:1", "b:1"));
}

TEST_F(FleetTest, PlacesOfNodesThatAreGoneAreUsedAgain) {
  fleet_->SetAddresses({"a:1", "b:1"});
  Up("a:1", "one", {0});
  Up("b:1", "two", {1});
  for (int i = 0; i < 20; ++i) {
    const std::string left = "a:" + std::to_string(i + 1);
    const std::string came = "a:" + std::to_string(i + 2);
    transport_.Lose(left);
    fleet_->SetAddresses({"b:1"});
    AwaitReaped({"b:1"});
    fleet_->SetAddresses({"b:1", came});
    Up(came, "node" + std::to_string(i), {0});
    EXPECT_THAT(Serving(0), ElementsAre(0)) << came;
    EXPECT_THAT(Addresses(), ElementsAre(came, "b:1"));
  }
}

TEST_F(FleetTest, ViewsFollowThePlanOfTheDirectiveByTheNamesOfNodes) {
  fleet_->SetAddresses({"a:1", "b:1", "c:1"});
  Up("a:1", "one", {0, 1});
  Up("b:1", "two", {0, 1});
  Up("c:1", "three", {1});
  balance::PlacementPlan plan{{"two", "three"}, {{kLayer, {{{0, 1.0f}}, {{0, 0.5f}, {1, 0.5f}}}}}};
  Directive directive;
  directive.epoch = 50;
  directive.plan = std::make_shared<const balance::PlacementPlan>(plan);
  fleet_->SetDirective(directive);
  EXPECT_EQ(fleet_->view()->epoch(), 50u);
  EXPECT_THAT(Serving(0), ElementsAre(1));
  EXPECT_THAT(Serving(1), ElementsAre(1, 2));
  EXPECT_THAT((*fleet_->view()->placement().Layer(kLayer))[1].shares[0], ElementsAre(0.5f, 0.5f));
  transport_.Lose("b:1");
  EXPECT_THAT(Serving(0), ElementsAre(0));
  EXPECT_THAT(Serving(1), ElementsAre(2));
  Up("b:1", "two", {0, 1});
  EXPECT_THAT(Serving(0), ElementsAre(1));
  directive.plan = nullptr;
  fleet_->SetDirective(directive);
  EXPECT_THAT(Serving(1), ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace expertmesh::mesh
