#include "common/balance/placement_planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/common/balance/planning_checks.h"

namespace expertmesh::balance {
namespace {

using ::testing::AllOf;
using testing::CheckPlan;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

PlanningInput Mesh(std::vector<double> loads, uint32_t nodes, uint32_t slots) {
  PlanningInput input;
  input.layers.push_back({3, 100, std::move(loads)});
  for (uint32_t i = 0; i < nodes; ++i) {
    NodeToPlan& node = input.nodes.emplace_back();
    node.node_id = absl::StrCat("node-", i);
    node.capacity_bytes = uint64_t{slots} * 100;
  }
  return input;
}

// The mesh as it is once the plan was carried out.
void CarryOut(const PlanningResult& result, PlanningInput* input) {
  input->present = result.plan;
  HoldCopiesOf(result.plan, &input->nodes);
}

std::string ErrorOf(const PlanningInput& input, const PlannerOptions& options = {}) {
  return PlanPlacement(input, options).status().ToString();
}

// Needs unequal shares: with equal ones, 232 is what published planners come to.
TEST(PlacementPlannerTest, UnequalSharesReachTheMean) {
  const PlanningInput input = Mesh({600, 560, 120, 120, 20, 10, 10, 10}, 8, 2);
  const auto result = PlanPlacement(input);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(CheckPlan(input, {}, *result), "");
  EXPECT_DOUBLE_EQ(result->layers[0].mean, 181.25);
  EXPECT_NEAR(result->layers[0].fullest, 181.25, 1e-9);
  EXPECT_NEAR(result->layers[0].lower_bound, 181.25, 1e-9);
}

TEST(PlacementPlannerTest, ZipfLoadsOnThirtyTwoNodes) {
  std::mt19937 random(7);
  PlanningInput input;
  for (uint32_t layer = 0; layer < 58; ++layer) {
    std::vector<double> loads(256);
    for (size_t i = 0; i < loads.size(); ++i) {
      loads[i] = 1.0 / static_cast<double>(i + 1);
    }
    std::shuffle(loads.begin(), loads.end(), random);
    input.layers.push_back({layer, 1, loads});
  }
  for (uint32_t i = 0; i < 32; ++i) {
    NodeToPlan& node = input.nodes.emplace_back();
    node.node_id = absl::StrCat("node-", i);
    node.slots_per_layer = 9;
    node.capacity_bytes = 9 * 58;
  }
  const auto result = PlanPlacement(input);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(CheckPlan(input, {}, *result), "");
  for (const LayerForecast& layer : result->layers) {
    EXPECT_LE(layer.FullestOverMean(), 1.003);
    EXPECT_LE(layer.Gap(), 0.005);
  }
}

TEST(PlacementPlannerTest, FasterNodesGetMoreAndCostlyLinksLess) {
  PlanningInput input = Mesh({10, 10, 10, 10, 10, 10}, 3, 6);
  input.nodes[0].speed = 3;
  input.nodes[2].link_cost = 1;  // As slow as half a node.
  const auto result = PlanPlacement(input);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(CheckPlan(input, {}, *result), "");
  std::vector<double> rows(3);
  for (const auto& copies : result->plan.layers[0].experts) {
    for (const ExpertCopy& copy : copies) {
      rows[copy.node] += 10 * copy.share;
    }
  }
  // Rates 3, 1 and 1/2.
  EXPECT_NEAR(rows[0], 40, 0.1);
  EXPECT_NEAR(rows[1], 60 / 4.5, 0.1);
  EXPECT_NEAR(rows[2], 30 / 4.5, 0.1);
}

TEST(PlacementPlannerTest, CopiesThatMustBeThereAreInDifferentZones) {
  PlanningInput input = Mesh(std::vector<double>(8, 1), 4, 4);
  input.nodes[0].zone = input.nodes[1].zone = "a";
  input.nodes[2].zone = input.nodes[3].zone = "b";
  PlannerOptions options;
  options.min_copies = 2;
  const auto spread = PlanPlacement(input, options);
  ASSERT_TRUE(spread.ok()) << spread.status();
  EXPECT_EQ(CheckPlan(input, options, *spread), "");
  for (const auto& copies : spread->plan.layers[0].experts) {
    EXPECT_EQ(testing::ZonesOf(input, copies), 2u);
  }
  // Zone b has room for half of the experts.
  input.nodes[0].capacity_bytes = 800;
  input.nodes[3].capacity_bytes = 0;
  EXPECT_THAT(ErrorOf(input, options), AllOf(HasSubstr("RESOURCE_EXHAUSTED"),
                                             HasSubstr("has no place"), HasSubstr("spread_zones")));
  options.spread_zones = false;
  EXPECT_TRUE(PlanPlacement(input, options).ok());
}

TEST(PlacementPlannerTest, NodesThatDrainKeepWhatTheyHave) {
  PlanningInput input = Mesh({9, 1, 1, 1}, 2, 4);
  input.nodes[0].accepts_copies = false;
  input.nodes[0].held = {{3, {0, 1}}};
  const auto result = PlanPlacement(input);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(CheckPlan(input, {}, *result), "");
  EXPECT_THAT(testing::PlannedOf(*result, 3), ::testing::IsSupersetOf({std::pair(0u, 0u)}));
  EXPECT_NEAR(result->layers[0].fullest, 6, 1e-9);
}

TEST(PlacementPlannerTest, WhatStaysIsNotLoaded) {
  PlanningInput input = Mesh({5, 4, 3, 3, 2, 1}, 3, 3);
  CarryOut(*PlanPlacement(input), &input);
  input.nodes.pop_back();
  for (NodeToPlan& node : input.nodes) {
    node.capacity_bytes = 500;
  }
  const auto result = PlanPlacement(input);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(CheckPlan(input, {}, *result), "");
  EXPECT_EQ(result->layers[0].present_fullest, std::numeric_limits<double>::infinity());
  EXPECT_THAT(result->reason, HasSubstr("for copies that experts must have"));
  // What the lost node held, and a copy more to level the two that are left.
  EXPECT_LE(result->bytes_loaded, 300u);
  EXPECT_EQ(result->bytes_freed, 0u);
}

TEST(PlacementPlannerTest, HysteresisKeepsThePlanUnlessItsFullestNodeImprovesByMore) {
  PlanningInput input = Mesh({10, 10, 10, 10}, 2, 3);
  CarryOut(*PlanPlacement(input), &input);
  input.layers[0].loads = {15, 10, 10, 10};
  const auto eager = PlanPlacement(input);
  ASSERT_EQ(eager->decision, PlanDecision::kApply) << eager->reason;
  // 25 before, 22.5 after.
  ASSERT_DOUBLE_EQ(eager->layers[0].present_fullest, 25);
  ASSERT_NEAR(eager->layers[0].fullest, 22.5, 0.1);
  PlannerOptions options;
  options.hysteresis = 0.11;
  const auto kept = PlanPlacement(input, options);
  EXPECT_EQ(kept->decision, PlanDecision::kKeep);
  EXPECT_EQ(kept->plan, input.present);
  EXPECT_THAT(kept->moves, IsEmpty());
  EXPECT_DOUBLE_EQ(kept->layers[0].fullest, 25);
  EXPECT_EQ(kept->reason,
            "no layer's fullest node gets lower by more than 11 %; the most is 10 %, in "
            "layer 3");
  options.hysteresis = 0.09;
  EXPECT_EQ(PlanPlacement(input, options)->decision, PlanDecision::kApply);
}

// Nothing is worth a change, but for copies that must be there.
TEST(PlacementPlannerTest, HysteresisOfOneGivesExpertsWhatTheyMustHave) {
  PlanningInput input = Mesh({10, 10, 10, 10}, 2, 3);
  PlannerOptions options;
  options.hysteresis = 1;
  const auto first = PlanPlacement(input, options);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(CheckPlan(input, options, *first), "");
  EXPECT_EQ(first->decision, PlanDecision::kApply);
  CarryOut(*first, &input);
  input.layers[0].loads = {1000, 1, 1, 1};
  EXPECT_EQ(PlanPlacement(input, options)->decision, PlanDecision::kKeep);
}

TEST(PlacementPlannerTest, BudgetsOfBytesAndSeconds) {
  PlanningInput input = Mesh({10, 10, 10, 10, 10, 10}, 3, 4);
  CarryOut(*PlanPlacement(input), &input);
  input.layers[0].loads = {60, 10, 10, 10, 10, 10};
  const auto all = PlanPlacement(input);
  ASSERT_GE(all->bytes_loaded, 200u);
  PlannerOptions options;
  options.byte_budget = 100;
  const auto less = PlanPlacement(input, options);
  ASSERT_TRUE(less.ok()) << less.status();
  EXPECT_EQ(less->bytes_loaded, 100u);
  EXPECT_GT(less->layers[0].fullest, all->layers[0].fullest);
  EXPECT_LT(less->layers[0].fullest, 60);
  options.byte_budget = std::nullopt;
  options.bytes_per_second = 50;
  EXPECT_DOUBLE_EQ(PlanPlacement(input, options)->load_seconds,
                   static_cast<double>(all->bytes_loaded) / 50);
  options.seconds_budget = 2;
  EXPECT_EQ(PlanPlacement(input, options)->bytes_loaded, 100u);
  input.nodes.pop_back();
  options.seconds_budget = 1;
  EXPECT_THAT(ErrorOf(input, options),
              AllOf(HasSubstr("RESOURCE_EXHAUSTED: the budget is 50 bytes"),
                    HasSubstr("raise byte_budget or seconds_budget")));
}

// Half of the bytes take most of the way: experts with loads like 1, 1/2, 1/3, ... stand in turn on
// nodes that have two slots more each.
TEST(PlacementPlannerTest, HalfOfTheBytesAreUsedWell) {
  std::vector<double> loads;
  for (uint32_t expert = 0; expert < 256; ++expert) {
    loads.push_back(1.0 / (expert + 1));
  }
  PlanningInput input = Mesh(loads, 72, 6);
  for (uint32_t node = 0; node < 72; ++node) {
    input.nodes[node].held = {{3, {node, node + 72, node + 144}}};
    if (node + 216 < 256) {
      input.nodes[node].held[0].experts.push_back(node + 216);
    }
  }
  const auto all = PlanPlacement(input);
  ASSERT_TRUE(all.ok()) << all.status();
  PlannerOptions options;
  options.byte_budget = all->bytes_loaded / 2;
  const auto half = PlanPlacement(input, options);
  ASSERT_TRUE(half.ok()) << half.status();
  EXPECT_EQ(CheckPlan(input, options, *half), "");
  EXPECT_GT(half->layers[0].present_fullest, 11 * half->layers[0].mean);
  EXPECT_LT(half->layers[0].FullestOverMean(), 1.28);
}

TEST(PlacementPlannerTest, LayersWithoutLoadCountExpertsAlike) {
  const PlanningInput input = Mesh(std::vector<double>(9, 0), 3, 3);
  const auto result = PlanPlacement(input);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(CheckPlan(input, {}, *result), "");
  EXPECT_DOUBLE_EQ(result->layers[0].FullestOverMean(), 1);
}

TEST(PlacementPlannerTest, LoadsOfAnyRange) {
  for (const double least : {0.0, 5e-324, 1e-200, 1e-31, 1e-12}) {
    const PlanningInput input = Mesh({1, least, 3 * least, 1e240, least, 0, 1e239, 1e230}, 3, 4);
    const auto result = PlanPlacement(input);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(CheckPlan(input, {}, *result), "");
    EXPECT_NEAR(result->layers[0].FullestOverMean(), 1, 1e-3);
  }
}

// The numbers in the words are those of the plan.
TEST(PlacementPlannerTest, MovesAreExplained) {
  PlanningInput input = Mesh({30, 10, 10, 10}, 2, 4);
  input.nodes[0].held = {{3, {0, 1}}};
  input.nodes[1].held = {{3, {2, 3}}};
  input.present.nodes = {"node-0", "node-1"};
  input.present.layers = {{3, {{{0, 1}}, {{0, 1}}, {{1, 1}}, {{1, 1}}}}};
  const auto result = PlanPlacement(input);
  ASSERT_EQ(result->moves.size(), 1u);
  EXPECT_EQ(
      Explain(input, *result, result->moves[0]),
      "expert 0 of layer 3: 50.0 % of its layer's load; copy 2 of 2, on node-1, takes 0.33 of "
      "it; fullest node 1.33 -> 1.00 of the mean");
  EXPECT_EQ(result->reason,
            "1 of 1 layers change; fullest node 1.333 -> 1.000 of the mean on average; 100 "
            "bytes to load, 0 to free");
  CopyMove freed;
  freed.expert = 2;
  freed.from = 1;
  freed.expert_share = 0.125f;
  freed.copies = 1;
  EXPECT_EQ(Explain(input, *result, freed),
            "expert 2 of layer 3: 12.5 % of its layer's load; its copy on node-1 goes, 1 stays; "
            "fullest node 1.33 -> 1.00 of the mean");
  freed.to = 0;
  freed.copy_number = 1;
  freed.copy_share = 1;
  EXPECT_THAT(Explain(input, *result, freed),
              HasSubstr("copy 1 of 1, on node-0 instead of node-1, takes 1.00 of it"));
}

TEST(PlacementPlannerTest, CapacityThatIsTooSmall) {
  EXPECT_THAT(ErrorOf(Mesh(std::vector<double>(9, 1), 2, 4)),
              AllOf(HasSubstr("RESOURCE_EXHAUSTED: layer 3 needs room for 9 copies"),
                    HasSubstr("room for 8"), HasSubstr("add nodes or capacity")));
}

struct BadInput {
  const char* name;
  void (*spoil)(PlanningInput*, PlannerOptions*);
  const char* error;
};

class BadPlanningInputTest : public ::testing::TestWithParam<BadInput> {};

TEST_P(BadPlanningInputTest, IsRefusedWithFieldValueAndRemedy) {
  PlanningInput input = Mesh({4, 3, 2, 1}, 2, 4);
  CarryOut(*PlanPlacement(input), &input);
  PlannerOptions options;
  GetParam().spoil(&input, &options);
  EXPECT_EQ(ErrorOf(input, options), absl::StrCat("INVALID_ARGUMENT: ", GetParam().error));
}

using Input = PlanningInput*;
using Options = PlannerOptions*;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

INSTANTIATE_TEST_SUITE_P(
    All, BadPlanningInputTest,
    ::testing::Values(
        BadInput{"NoNodes", [](Input i, Options) { i->nodes.clear(); },
                 "nodes is empty; name one node or more"},
        BadInput{"NoLayers", [](Input i, Options) { i->layers.clear(); },
                 "layers is empty; name one layer or more"},
        BadInput{"LayerTwice", [](Input i, Options) { i->layers.push_back(i->layers[0]); },
                 "layer is 3; it comes twice: name each layer once"},
        BadInput{"NoLoads", [](Input i, Options) { i->layers[0].loads.clear(); },
                 "loads of layer 3 is empty; give one for each expert"},
        BadInput{"NoBytes", [](Input i, Options) { i->layers[0].expert_bytes = 0; },
                 "expert_bytes of layer 3 is 0; use 1 or more"},
        BadInput{
            "NanLoad", [](Input i, Options) { i->layers[0].loads[2] = kNan; },
            "load of expert 2 of layer 3 is nan; use a number of 0 or more, in all at most 1e+250"},
        BadInput{
            "NegativeLoad", [](Input i, Options) { i->layers[0].loads[1] = -1; },
            "load of expert 1 of layer 3 is -1; use a number of 0 or more, in all at most 1e+250"},
        BadInput{"LoadsTooLarge", [](Input i, Options) { i->layers[0].loads[1] = 1e300; },
                 "load of expert 1 of layer 3 is 1e+300; use a number of 0 or more, in all at most "
                 "1e+250"},
        BadInput{"NodeTwice", [](Input i, Options) { i->nodes[1].node_id = "node-0"; },
                 "node_id is 'node-0'; it comes twice: name each once"},
        BadInput{"NoId", [](Input i, Options) { i->nodes[1].node_id = ""; },
                 "node_id is ''; name every node"},
        BadInput{"Speed", [](Input i, Options) { i->nodes[1].speed = 0; },
                 "speed of node 'node-1' is 0; use 1e-09 to 1e+09"},
        BadInput{"LinkCost", [](Input i, Options) { i->nodes[1].link_cost = -0.5; },
                 "link_cost of node 'node-1' is -0.5; use 0 to 1e+09"},
        BadInput{"HeldLayer", [](Input i, Options) { i->nodes[1].held[0].layer = 4; },
                 "layer that node 'node-1' holds is 4; layers has no such layer: add it or leave "
                 "it out here"},
        BadInput{"HeldExpert", [](Input i, Options) { i->nodes[1].held[0].experts[0] = 4; },
                 "expert of layer 3 that node 'node-1' holds is 4; use 0 to 3"},
        BadInput{"HeldTwice",
                 [](Input i, Options) {
                   i->nodes[1].held[0].experts = {1, 1};
                 },
                 "expert of layer 3 that node 'node-1' holds is 1; it comes twice: name each "
                 "expert once"},
        BadInput{"PresentLayer", [](Input i, Options) { i->present.layers[0].layer = 9; },
                 "present.layers is 9; layers has no such layer: add it or leave it out here"},
        BadInput{"PresentExperts",
                 [](Input i, Options) { i->present.layers[0].experts.pop_back(); },
                 "number of experts of present.layers 3 is 3; use one for each load, 4"},
        BadInput{"PresentNode",
                 [](Input i, Options) { i->present.layers[0].experts[1][0].node = 7; },
                 "node of expert 1 of present.layers 3 is 7; use a position in present.nodes, "
                 "below 2"},
        BadInput{"PresentShare",
                 [](Input i, Options) { i->present.layers[0].experts[1][0].share = 1.5f; },
                 "share of expert 1 of present.layers 3 is 1.5; use 0 to 1"},
        BadInput{"PresentTwice",
                 [](Input i, Options) {
                   i->present.layers[0].experts[1] = {{1, .5f}, {1, .5f}};
                 },
                 "node of expert 1 of present.layers 3 is 1; it comes twice: a node holds an "
                 "expert once"},
        BadInput{"MinCopies", [](Input, Options o) { o->min_copies = 3; },
                 "min_copies is 3; use 1 to the number of nodes, which is 2"},
        BadInput{"MaxCopies",
                 [](Input, Options o) {
                   o->min_copies = 2;
                   o->max_copies = 1;
                 },
                 "max_copies is 1; use 0, or min_copies (2) or more"},
        BadInput{"Hysteresis", [](Input, Options o) { o->hysteresis = kNan; },
                 "hysteresis is nan; use 0 to 1"},
        BadInput{"SecondsAlone", [](Input, Options o) { o->seconds_budget = 1; },
                 "bytes_per_second is 0; seconds_budget needs it: use a number above 0"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace expertmesh::balance
