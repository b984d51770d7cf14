// A move on a real fleet, whose nodes load and let go as they are asked.
#include "router_service/moves/fleet_nodes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "router_service/moves/mover_options.h"
#include "router_service/moves/placement_mover.h"
#include "tests/support/fake_checkpoint.h"
#include "tests/support/fake_endpoint.h"
#include "tests/support/faulty_transport.h"
#include "tests/support/in_process_transport.h"
#include "tests/support/too_long.h"

namespace expertmesh::moves {
namespace {

using balance::PlacementPlan;
using testing::ElementsAre;
using testing::UnorderedElementsAre;

constexpr uint32_t kLayer = 1;

FakeCheckpointOptions OneLayer() {
  FakeCheckpointOptions options;
  options.moe_layers = {kLayer};
  return options;
}

// A node that holds experts of one layer, and takes no batches.
class HoldingNode final : public FakeEndpoint {
 public:
  HoldingNode(const std::string& node_id, std::set<uint32_t> held)
      : FakeEndpoint(DescriptionOf(node_id, held)), node_id_(node_id), held_(std::move(held)) {}

  absl::StatusOr<internal::v1::LoadExpertsResponse> LoadExperts(
      const internal::v1::LoadExpertsRequest& request) override {
    for (const v1::HostedExperts& entry : request.experts()) {
      held_.insert(entry.experts().begin(), entry.experts().end());
    }
    Become(DescriptionOf(node_id_, held_));
    return internal::v1::LoadExpertsResponse();
  }
  absl::StatusOr<internal::v1::UnloadExpertsResponse> UnloadExperts(
      const internal::v1::UnloadExpertsRequest& request) override {
    for (const v1::HostedExperts& entry : request.experts()) {
      for (const uint32_t expert : entry.experts()) {
        held_.erase(expert);
      }
    }
    Become(DescriptionOf(node_id_, held_));
    return internal::v1::UnloadExpertsResponse();
  }
  std::unique_ptr<StreamHandler> OpenCompute(std::shared_ptr<FrameSink>) override {
    class Ignore final : public StreamHandler {
      void OnFrame(Frame) override {}
    };
    return std::make_unique<Ignore>();
  }
  static constexpr uint64_t kOthersBytes = 777;
  // Beside what it holds: the second half of an expert, its shared experts, and one that is none.
  void HoldOthers(uint32_t half, uint32_t shared) {
    v1::NodeDescription description = DescriptionOf(node_id_, held_);
    v1::HostedExperts& sliced = *description.add_hosted();
    sliced.set_layer(kLayer);
    sliced.set_slice_index(1);
    sliced.set_slice_count(2);
    sliced.add_experts(half);
    description.mutable_hosted(0)->add_experts(shared);
    description.mutable_hosted(0)->add_experts(shared + 1);
    description.mutable_memory()->set_weights_bytes(kOthersBytes);
    Become(std::move(description));
  }
  void Say(v1::NodeState state) {
    v1::NodeDescription description = DescriptionOf(node_id_, held_);
    description.set_state(state);
    Become(std::move(description));
  }

 private:
  static v1::NodeDescription DescriptionOf(const std::string& node_id,
                                           const std::set<uint32_t>& held) {
    v1::NodeDescription description;
    description.set_node_id(node_id);
    description.set_instance_id(node_id + " once");
    description.set_state(v1::NODE_STATE_READY);
    description.set_fingerprint(FakeCheckpoint(OneLayer()).fingerprint());
    description.mutable_memory()->set_weights_bytes(100 * held.size());
    description.mutable_memory()->set_limit_bytes(1000);
    v1::HostedExperts& hosted = *description.add_hosted();
    hosted.set_layer(kLayer);
    hosted.set_slice_count(1);
    hosted.mutable_experts()->Add(held.begin(), held.end());
    return description;
  }

  const std::string node_id_;
  // Calls come one after the other.
  std::set<uint32_t> held_;
};

// Calls, and their answers, are lost by chance, from this seed; 0: none.
class FleetNodesTest : public testing::TestWithParam<uint64_t> {
 protected:
  FleetNodesTest() {
    mesh::FleetOptions options;
    options.encodings = *mesh::WireEncodings::Parse("auto", "auto", Dtype::kF32);
    options.biases = std::make_shared<mesh::SelectBiases>();
    network_.Register("a:1", &first_);
    network_.Register("b:1", &second_);
    fleet_ = std::make_unique<mesh::Fleet>(std::make_shared<FakeCheckpoint>(OneLayer()),
                                           std::move(options), &metrics_, &network_, &timers_,
                                           Clock::Real());
    fleet_->SetAddresses({"a:1", "b:1"});
    nodes_ = std::make_unique<FleetNodes>(
        fleet_.get(), std::map<uint32_t, LayerUnits>{{kLayer, {OneLayer().num_experts, 10, 70}}});
  }
  ~FleetNodesTest() override {
    fleet_->Close();
    network_.Unregister("a:1");
    network_.Unregister("b:1");
  }

  // Polls as the fleet changes.
  bool Await(const std::function<bool()>& reached) {
    const absl::Time give_up = Clock::Real()->Now() + kTooLong;
    while (!reached() && Clock::Real()->Now() < give_up) {
      std::this_thread::yield();
    }
    return reached();
  }
  NodeState State(size_t at) const { return nodes_->Nodes().at(at); }
  std::vector<mesh::NodeIndex> Serving(uint32_t expert) const {
    return (*fleet_->view()->placement().Layer(kLayer))[expert].slices.at(0);
  }

  HoldingNode first_{"one", {0, 1, 2, 3, 4, 5}};
  HoldingNode second_{"two", {}};
  InProcessNetwork network_;
  FaultyTransport faulty_{&network_,
                          {.seed = GetParam(),
                           .lose_call = GetParam() == 0 ? 0 : 0.3,
                           .lose_answer = GetParam() == 0 ? 0 : 0.3},
                          Clock::Real()};
  TimerQueue timers_{Clock::Real()};
  prometheus::Registry registry_;
  metrics::RouterMetrics metrics_{registry_};
  std::unique_ptr<mesh::Fleet> fleet_;
  std::unique_ptr<FleetNodes> nodes_;
};

INSTANTIATE_TEST_SUITE_P(Seeds, FleetNodesTest, testing::Range<uint64_t>(0, 8));

TEST_P(FleetNodesTest, SaysWhatNodesHoldAndWhetherTheyCanBeAsked) {
  ASSERT_TRUE(Await([this] { return State(0).ready && State(1).ready; }));
  const NodeState state = State(0);
  EXPECT_EQ(state.node_id, "one");
  EXPECT_EQ(state.instance_id, "one once");
  EXPECT_EQ(state.weights_bytes, 600u);
  EXPECT_EQ(state.limit_bytes, 1000u);
  EXPECT_EQ(state.held->size(), 6u);
  EXPECT_TRUE(state.held->contains({kLayer, 5}));
  EXPECT_EQ(State(0).held, state.held);  // Made once.
  first_.Say(v1::NODE_STATE_LOADING);
  ASSERT_TRUE(Await([this] { return !State(1).ready; }));  // Others go first.
  EXPECT_EQ(State(1).node_id, "one");
  EXPECT_THAT(State(1).why_not, testing::HasSubstr("flags"));
  EXPECT_EQ(State(1).held->size(), 6u);
  network_.Unregister("b:1");
  ASSERT_TRUE(Await([this] {
    const std::vector<NodeState> nodes = nodes_->Nodes();
    return !nodes[0].ready && !nodes[1].ready && nodes[1].node_id == "two";
  }));
  absl::Status status;
  nodes_->Unload("two", {}, kTooLong, [&status](const auto& answer) { status = answer.status(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
}

TEST_P(FleetNodesTest, SaysHowLargeIsWhatCannotBeMoved) {
  ASSERT_TRUE(Await([this] { return State(0).ready && State(1).ready; }));
  EXPECT_EQ(State(1).other_units, 0u);
  second_.HoldOthers(/*half=*/3, /*shared=*/OneLayer().num_experts);
  ASSERT_TRUE(Await([this] { return State(1).weights_bytes == HoldingNode::kOthersBytes; }));
  EXPECT_EQ(State(1).other_units, 5u + 70u);
  EXPECT_TRUE(State(1).held->empty());
  EXPECT_EQ(State(0).other_units, 0u);
}

TEST_P(FleetNodesTest, AMoveChangesWhatViewsUseAndLeavesNoExpertWithoutACopy) {
  ASSERT_TRUE(Await([this] { return fleet_->ready() && State(1).ready; }));
  std::atomic<bool> ended{false};
  std::atomic<bool> always_ready{true};
  uint64_t epoch = 100;
  PlacementMover* mover = nullptr;
  PlacementMover moves({}, ExpertSizes{{kLayer, 1}}, nodes_.get(),
                       {[&](uint64_t id, const PlanPtr& plan) {
                          mesh::Directive directive;
                          directive.epoch = ++epoch;
                          directive.plan = plan;
                          fleet_->SetDirective(directive);
                          mover->Confirm(id);  // This router is the only one.
                        },
                        [&](const MoveOutcome& outcome) {
                          EXPECT_TRUE(outcome.status.ok()) << outcome.status;
                          ended = true;
                        }},
                       &timers_, Clock::Real());
  mover = &moves;
  const uint64_t id = fleet_->Subscribe([&] {
    always_ready = always_ready && fleet_->ready();
    moves.OnNodesChanged();
  });
  PlacementPlan plan{{"one", "two"}, {{kLayer, {}}}};
  for (uint32_t expert = 0; expert < 6; ++expert) {
    plan.layers[0].experts.push_back({{expert % 2, 1.0f}});
  }
  plan.layers[0].experts[0] = {{0, 0.5f}, {1, 0.5f}};
  ASSERT_TRUE(moves.Start(3, std::make_shared<const PlacementPlan>(plan)).ok());
  ASSERT_TRUE(Await([&] { return ended.load(); }));
  fleet_->Unsubscribe(id);
  EXPECT_TRUE(always_ready);
  EXPECT_THAT(*State(0).held,
              UnorderedElementsAre(ExpertKey{1, 0}, ExpertKey{1, 2}, ExpertKey{1, 4}));
  EXPECT_THAT(*State(1).held, UnorderedElementsAre(ExpertKey{1, 0}, ExpertKey{1, 1},
                                                   ExpertKey{1, 3}, ExpertKey{1, 5}));
  EXPECT_THAT(Serving(0), ElementsAre(0, 1));
  EXPECT_THAT(Serving(3), ElementsAre(1));
  EXPECT_THAT(Serving(4), ElementsAre(0));
}

}  // namespace
}  // namespace expertmesh::moves
