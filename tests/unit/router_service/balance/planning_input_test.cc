#include "router_service/balance/planning_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace expertmesh::balance_control {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kParameters = 1000;

SteeredModel Model() {
  MoeLayerDescription description;
  description.routing.num_experts = 4;
  description.routing.top_k = 1;
  SteeredModel model;
  for (const uint32_t layer : {1, 2}) {
    model.layers[layer] = MakeSteeredLayer(description, {});
    model.layers[layer].expert_parameters = kParameters;
  }
  return model;
}

// A node whose experts take two bytes a parameter.
v1::TopologyNode& AddNode(const std::string& id, const std::vector<uint32_t>& experts,
                          v1::Topology* topology) {
  v1::TopologyNode& node = *topology->add_nodes();
  node.set_address(id + ":1");
  node.set_link(v1::NODE_LINK_UP);
  v1::NodeDescription& description = *node.mutable_description();
  description.set_node_id(id);
  for (const uint32_t layer : {1, 2}) {
    v1::HostedExperts& hosted = *description.add_hosted();
    hosted.set_layer(layer);
    hosted.mutable_experts()->Add(experts.begin(), experts.end());
    hosted.set_slice_count(1);
  }
  description.mutable_memory()->set_weights_bytes(2 * 2 * kParameters * experts.size());
  return node;
}

LoadCounts Loads(uint64_t first, uint64_t second) {
  LoadCounts loads;
  for (const auto& [layer, tokens] : {std::pair(1u, first), std::pair(2u, second)}) {
    loads[layer].tokens = tokens;
    loads[layer].assignments = {tokens, 0, 0, 0};
  }
  return loads;
}

PlacementPolicy Policy(uint64_t min_tokens) {
  PlacementPolicy policy;
  policy.min_tokens = min_tokens;
  return policy;
}

TEST(PlanningInput, SaysWhatNodesHoldAndHaveRoomFor) {
  v1::Topology topology;
  AddNode("a", {0, 1}, &topology);
  v1::TopologyNode& limited = AddNode("b", {2, 3}, &topology);
  limited.mutable_description()->mutable_memory()->set_limit_bytes(100'000);
  limited.mutable_description()->set_zone("east");
  const absl::StatusOr<PlanningQuestion> question = MakePlanningQuestion(
      Model(), topology, Loads(10, 10), nullptr, Policy(1), DrainingNodes::kKeepCopies);
  ASSERT_TRUE(question.ok()) << question.status();
  const balance::PlanningInput& input = question->input;
  ASSERT_EQ(input.layers.size(), 2u);
  EXPECT_EQ(input.layers[0].expert_bytes, 2 * kParameters);
  EXPECT_THAT(input.layers[0].loads, ElementsAre(10, 0, 0, 0));
  ASSERT_EQ(input.nodes.size(), 2u);
  EXPECT_EQ(input.nodes[0].capacity_bytes, 4 * 2 * kParameters) << "no more than it holds";
  EXPECT_EQ(input.nodes[1].capacity_bytes, 100'000u);
  EXPECT_EQ(input.nodes[1].zone, "east");
  EXPECT_THAT(input.nodes[1].held[0].experts, ElementsAre(2, 3));
  EXPECT_EQ(question->options.min_copies, 1u);
  EXPECT_TRUE(balance::PlanPlacement(input, question->options).ok());
}

TEST(PlanningInput, RedundancyIsKeptUnlessThePolicySaysOtherwise) {
  v1::Topology topology;
  for (const char* id : {"a", "b"}) {
    AddNode(id, {0, 1, 2, 3}, &topology);
  }
  PlacementPolicy policy = Policy(1);
  const auto copies = [&] {
    return MakePlanningQuestion(Model(), topology, Loads(10, 10), nullptr, policy,
                                DrainingNodes::kKeepCopies)
        ->options.min_copies;
  };
  EXPECT_EQ(copies(), 2u);
  policy.min_copies = 1;
  EXPECT_EQ(copies(), 1u);
}

// Three copies each, and two at most: an operator who asks for fewer need not say twice that fewer
// will do.
TEST(PlanningInput, RedundancyIsKeptAsFarAsMaxCopiesLetsIt) {
  v1::Topology topology;
  for (const char* id : {"a", "b", "c"}) {
    AddNode(id, {0, 1, 2, 3}, &topology);
  }
  PlacementPolicy policy = Policy(1);
  policy.max_copies = 2;
  const absl::StatusOr<PlanningQuestion> question = MakePlanningQuestion(
      Model(), topology, Loads(10, 10), nullptr, policy, DrainingNodes::kLeaveOut);
  ASSERT_TRUE(question.ok()) << question.status();
  EXPECT_EQ(question->options.min_copies, 2u);
  const auto planned = balance::PlanPlacement(question->input, question->options);
  ASSERT_TRUE(planned.ok()) << planned.status();
  EXPECT_EQ(planned->bytes_freed, 2 * 4 * 2 * kParameters);
}

TEST(PlanningInput, LoadingTakesAsLongAsTheTighterBoundSays) {
  moves::MoverOptions options;
  options.bytes_per_second = 100;
  options.node_bytes_per_second = 30;
  EXPECT_EQ(LoadRate(options, 2), 60);
  EXPECT_EQ(LoadRate(options, 4), 100);
  options.node_bytes_per_second = 0;
  EXPECT_EQ(LoadRate(options, 2), 100);
  options.bytes_per_second = 0;
  EXPECT_EQ(LoadRate(options, 2), 0);
  options.node_bytes_per_second = 30;
  EXPECT_EQ(LoadRate(options, 2), 60);
}

TEST(PlanningInput, LayersWithFewTokensKeepTheirCopiesAndTheirRoom) {
  v1::Topology topology;
  AddNode("a", {0, 1, 2, 3}, &topology)
      .mutable_description()
      ->mutable_memory()
      ->set_limit_bytes(20'000);
  const absl::StatusOr<PlanningQuestion> question = MakePlanningQuestion(
      Model(), topology, Loads(100, 5), nullptr, Policy(50), DrainingNodes::kKeepCopies);
  ASSERT_TRUE(question.ok()) << question.status();
  ASSERT_EQ(question->input.layers.size(), 1u);
  EXPECT_EQ(question->input.layers[0].layer, 1u);
  EXPECT_EQ(question->input.nodes[0].capacity_bytes, 20'000 - 4 * 2 * kParameters);
  EXPECT_THAT(MakePlanningQuestion(Model(), topology, Loads(9, 9), nullptr, Policy(50),
                                   DrainingNodes::kKeepCopies)
                  .status()
                  .message(),
              HasSubstr("no layer has had 50 tokens of late"));
}

TEST(PlanningInput, WhatIsInForceForOtherLayersIsLeftOut) {
  v1::Topology topology;
  AddNode("a", {0, 1, 2, 3}, &topology);
  balance::PlacementPlan present;
  present.nodes = {"a"};
  for (const uint32_t layer : {1, 2}) {
    balance::LayerPlacement& placed = present.layers.emplace_back();
    placed.layer = layer;
    placed.experts.assign(4, {{0, 1}});
  }
  const absl::StatusOr<PlanningQuestion> question = MakePlanningQuestion(
      Model(), topology, Loads(10, 9), &present, Policy(10), DrainingNodes::kKeepCopies);
  ASSERT_TRUE(question.ok()) << question.status();
  EXPECT_THAT(question->input.present.nodes, ElementsAre("a"));
  ASSERT_EQ(question->input.present.layers.size(), 1u);
  EXPECT_EQ(question->input.present.layers[0].layer, 1u);
  EXPECT_TRUE(balance::PlanPlacement(question->input, question->options).ok());
}

TEST(PlanningInput, WhatIsNotUpSlicedOrDamagedIsNotCountedOn) {
  v1::Topology topology;
  AddNode("down", {0, 1, 2, 3}, &topology).set_link(v1::NODE_LINK_DOWN);
  AddNode("refused", {0, 1, 2, 3}, &topology).set_link(v1::NODE_LINK_REFUSED);
  v1::TopologyNode& node = AddNode("up", {0, 1, 2, 3}, &topology);
  node.mutable_description()->mutable_hosted(1)->set_slice_count(2);
  v1::DamagedExperts& damaged = *node.add_damaged();
  damaged.set_layer(1);
  damaged.add_experts(2);
  const PlanningQuestion question = *MakePlanningQuestion(Model(), topology, Loads(10, 10), nullptr,
                                                          Policy(1), DrainingNodes::kKeepCopies);
  ASSERT_EQ(question.input.nodes.size(), 1u);
  EXPECT_EQ(question.input.nodes[0].node_id, "up");
  ASSERT_EQ(question.input.nodes[0].held.size(), 1u);
  EXPECT_THAT(question.input.nodes[0].held[0].experts, ElementsAre(0, 1, 3));
  topology.mutable_nodes(2)->set_link(v1::NODE_LINK_EJECTED);
  EXPECT_THAT(MakePlanningQuestion(Model(), topology, Loads(10, 10), nullptr, Policy(1),
                                   DrainingNodes::kKeepCopies)
                  .status()
                  .message(),
              HasSubstr("no node is up"));
}

TEST(PlanningInput, ANodeThatDrainsKeepsWhatRoutersFollowAndGetsNoMore) {
  v1::Topology topology;
  AddNode("leaving", {0, 1, 2}, &topology).set_link(v1::NODE_LINK_DRAINING);
  AddNode("up", {3}, &topology);
  const auto ask = [&](const balance::PlacementPlan* present, DrainingNodes draining) {
    return MakePlanningQuestion(Model(), topology, Loads(10, 10), present, Policy(1), draining)
        ->input.nodes;
  };
  std::vector<balance::NodeToPlan> nodes = ask(nullptr, DrainingNodes::kKeepCopies);
  ASSERT_EQ(nodes.size(), 2u);
  EXPECT_EQ(nodes[0].node_id, "up");
  EXPECT_TRUE(nodes[0].accepts_copies);
  EXPECT_EQ(nodes[1].node_id, "leaving");
  EXPECT_FALSE(nodes[1].accepts_copies);
  EXPECT_THAT(nodes[1].held[0].experts, ElementsAre(0, 1, 2));
  // Routers were taken off its copy of expert 1, of layer 1 alone.
  balance::PlacementPlan present;
  present.nodes = {"up", "leaving"};
  present.layers = {{1, {{{1, 1}}, {{0, 1}}, {{1, 1}}, {{0, 1}}}}};
  nodes = ask(&present, DrainingNodes::kKeepCopies);
  EXPECT_THAT(nodes[1].held[0].experts, ElementsAre(0, 2));
  EXPECT_THAT(nodes[1].held[1].experts, ElementsAre(0, 1, 2));
  nodes = ask(&present, DrainingNodes::kLeaveOut);
  ASSERT_EQ(nodes.size(), 1u);
  EXPECT_EQ(nodes[0].node_id, "up");
  // It comes back under another address.
  AddNode("leaving", {0, 1, 2}, &topology);
  nodes = ask(nullptr, DrainingNodes::kKeepCopies);
  ASSERT_EQ(nodes.size(), 2u);
  EXPECT_TRUE(nodes[1].accepts_copies);
}

TEST(PlanningInput, NodesThatMaySoonServeAsBeforeAreAwaited) {
  v1::Topology topology;
  v1::TopologyNode& node = AddNode("a", {0}, &topology);
  AddNode("b", {1}, &topology).set_link(v1::NODE_LINK_DRAINING);
  AddNode("c", {1}, &topology).set_link(v1::NODE_LINK_REFUSED);
  v1::NodeDescription& description = *node.mutable_description();
  for (const v1::NodeState state : {v1::NODE_STATE_READY, v1::NODE_STATE_FAILED}) {
    description.set_state(state);
    EXPECT_THAT(AwaitedNode(topology), IsEmpty());
  }
  description.set_state(v1::NODE_STATE_LOADING);
  EXPECT_THAT(AwaitedNode(topology), HasSubstr("node a:1 loads what its flags say"));
  description.set_state(v1::NODE_STATE_READY);
  node.set_link(v1::NODE_LINK_EJECTED);
  EXPECT_THAT(AwaitedNode(topology), HasSubstr("node a:1 is ejected"));
  node.set_link(v1::NODE_LINK_DOWN);
  EXPECT_THAT(AwaitedNode(topology), HasSubstr("node a:1 is down"));
}

// Layers of 4 experts, and of shared experts that are as large as 4 of them together.
TEST(PlanningInput, SharedExpertsTakeRoomAndMakeNoOtherLarger) {
  SteeredModel model = Model();
  for (auto& [index, layer] : model.layers) {
    layer.shared_parameters = 4 * kParameters;
  }
  v1::Topology topology;
  const auto add = [&](const std::string& id, const std::vector<uint32_t>& experts,
                       uint64_t parameters, uint64_t limit) {
    v1::MemoryUsage& memory =
        *AddNode(id, experts, &topology).mutable_description()->mutable_memory();
    memory.set_weights_bytes(2 * parameters);  // Two bytes for each.
    memory.set_limit_bytes(limit);
  };
  add("routed", {0, 1, 2, 3}, 8 * kParameters, 40'000);
  add("both", {0, 1, 4}, 12 * kParameters, 40'000);
  add("shared", {4, 5}, 8 * kParameters, 40'000);  // There is no expert 5.
  const PlanningQuestion question = *MakePlanningQuestion(model, topology, Loads(10, 10), nullptr,
                                                          Policy(1), DrainingNodes::kKeepCopies);
  EXPECT_EQ(question.input.layers[0].expert_bytes, 2 * kParameters);
  const std::vector<balance::NodeToPlan>& nodes = question.input.nodes;
  EXPECT_EQ(nodes[0].capacity_bytes, 40'000u);
  EXPECT_EQ(nodes[1].capacity_bytes, 40'000u - 16 * kParameters);
  EXPECT_EQ(nodes[2].capacity_bytes, 40'000u - 16 * kParameters);
  EXPECT_THAT(nodes[1].held[0].experts, ElementsAre(0, 1));
  EXPECT_THAT(nodes[2].held, IsEmpty());
}

TEST(PlanningInput, AModelsSharedExpertsAreCountedByTheirOwnWidth) {
  MoeLayerDescription description;
  description.routing.num_experts = 4;
  description.expert.d_model = 8;
  description.expert.intermediate_size = 16;
  EXPECT_EQ(MakeSteeredLayer(description, {}).shared_parameters, 0u);
  description.shared_intermediate_size = 40;
  EXPECT_EQ(MakeSteeredLayer(description, {}).shared_parameters, 3u * 8 * 40);
}

TEST(PlanningInput, SpeedsAreMeasuredAndWhatIsNotMeasuredIsAverage) {
  v1::Topology topology;
  const auto measured = [&](const char* id, uint64_t assignments, uint64_t micros) {
    v1::TopologyNode& node = AddNode(id, {0, 1, 2, 3}, &topology);
    node.set_computed_assignments(assignments);
    node.set_compute_us(micros);
  };
  measured("slow", 10'000, 20'000);
  measured("fast", 10'000, 5'000);
  measured("new", 999, 1);
  const PlanningQuestion question = *MakePlanningQuestion(Model(), topology, Loads(10, 10), nullptr,
                                                          Policy(1), DrainingNodes::kKeepCopies);
  EXPECT_THAT(question.input.nodes[0].speed, DoubleNear(0.4, 1e-9));
  EXPECT_THAT(question.input.nodes[1].speed, DoubleNear(1.6, 1e-9));
  EXPECT_EQ(question.input.nodes[2].speed, 1);
}

// A node at the mean speed takes 2 us for an assignment: a link that adds 3 us costs 1.5 of that.
TEST(PlanningInput, LinksCostWhatWasMeasuredInTheTimeOfAnAssignment) {
  v1::Topology topology;
  v1::TopologyNode& near = AddNode("near", {0, 1, 2, 3}, &topology);
  near.set_link_us_per_assignment(3);  // Where no speed is known, that says nothing.
  v1::TopologyNode& far = AddNode("far", {0, 1, 2, 3}, &topology);
  far.set_link_us_per_assignment(6);
  const auto input = [&topology] {
    return MakePlanningQuestion(Model(), topology, Loads(1000, 1000), nullptr, Policy(10),
                                DrainingNodes::kLeaveOut)
        ->input;
  };
  EXPECT_EQ(input().nodes[1].link_cost, 0);
  for (v1::TopologyNode* node : {&near, &far}) {
    node->set_computed_assignments(10'000);
    node->set_compute_us(20'000);
  }
  const balance::PlanningInput measured = input();
  EXPECT_THAT(measured.nodes[0].link_cost, DoubleNear(1.5, 1e-9));
  EXPECT_THAT(measured.nodes[1].link_cost, DoubleNear(3, 1e-9));
  // All of the load is one expert's, in copies of 1 / 2.5 and 1 / 4 assignments a unit of time.
  const absl::StatusOr<balance::PlanningResult> plan = balance::PlanPlacement(measured);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_NEAR(plan->plan.layers[0].experts[0][0].share, 4 / 6.5, 1e-2);
}

TEST(PlanningInput, LayersThatWereNotPlannedStayInThePlan) {
  balance::PlacementPlan present;
  present.nodes = {"gone", "a"};
  present.layers = {{1, {{{1, 1}}}}, {2, {{{0, .5f}, {1, .5f}}}}};
  balance::PlacementPlan plan;
  plan.nodes = {"a", "b"};
  plan.layers = {{1, {{{1, 1}}}}};
  const balance::PlacementPlan merged = WithUnplannedLayers(plan, &present);
  EXPECT_THAT(merged.nodes, ElementsAre("a", "b", "gone"));
  ASSERT_EQ(merged.layers.size(), 2u);
  EXPECT_EQ(merged.layers[0].experts[0][0].node, 1u);
  EXPECT_THAT(merged.layers[1].experts[0],
              ElementsAre(balance::ExpertCopy{0, .5f}, balance::ExpertCopy{2, .5f}));
  EXPECT_EQ(WithUnplannedLayers(plan, nullptr), plan);
}

TEST(PlacementPolicy, ChangesLeaveTheRestAndImpossibleOnesAreNamed) {
  v1::PlacementPolicy change;
  change.set_automatic(true);
  change.set_min_copies(2);
  const PlacementPolicy changed = *WithChange(PlacementPolicy(), change);
  EXPECT_TRUE(changed.automatic);
  EXPECT_EQ(changed.hysteresis, PlacementPolicy().hysteresis);
  EXPECT_EQ(*WithChange(PlacementPolicy(), ToProto(changed)), changed);
  change.set_max_copies(1);
  EXPECT_THAT(WithChange({}, change).status().message(), HasSubstr("max_copies is 1"));
  change = {};
  change.set_hysteresis(2);
  EXPECT_THAT(WithChange({}, change).status().message(), HasSubstr("hysteresis is 2"));
  change = {};
  change.set_interval_ms(1);
  EXPECT_THAT(WithChange({}, change).status().message(), HasSubstr("interval_ms is 1; use 100"));
}

}  // namespace
}  // namespace expertmesh::balance_control
