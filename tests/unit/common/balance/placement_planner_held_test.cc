// What nodes hold does not come from an earlier plan of the same options: operators start nodes
// with shards of their own, change options, and drain nodes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/balance/placement_planner.h"
#include "tests/unit/common/balance/planning_checks.h"
#include "tests/unit/common/balance/random_planning_input.h"
#include "tests/unit/common/balance/room_for_copies.h"

namespace expertmesh::balance {
namespace {

using testing::CheckPlan;
using testing::Randomly;
using testing::RoomForCopies;

PlanningInput Mesh(uint32_t experts, uint32_t nodes, uint32_t slots) {
  PlanningInput input;
  input.layers.push_back({3, 100, std::vector<double>(experts, 1)});
  for (uint32_t i = 0; i < nodes; ++i) {
    NodeToPlan& node = input.nodes.emplace_back();
    node.node_id = absl::StrCat("node-", i);
    node.capacity_bytes = uint64_t{slots} * 100;
  }
  return input;
}

TEST(PlanningChecksTest, ForecastsThatAreNoNumbersAreWrong) {
  const PlanningInput input = Mesh(4, 2, 4);
  const auto result = PlanPlacement(input);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(CheckPlan(input, {}, *result), "");
  for (double LayerForecast::*field :
       {&LayerForecast::fullest, &LayerForecast::mean, &LayerForecast::lower_bound,
        &LayerForecast::present_fullest}) {
    PlanningResult wrong = *result;
    wrong.layers[0].*field = std::numeric_limits<double>::quiet_NaN();
    EXPECT_NE(CheckPlan(input, {}, wrong), "");
  }
}

// Its plan is right; it is refused only where there is no room.
TEST(PlacementPlannerHeldTest, AnyHeldCopiesLeadToAPlanWhereThereIsOne) {
  constexpr int kCases = 3000;
  int refused = 0;
  int wrongly_refused = 0;
  for (uint32_t seed = 0; seed < kCases; ++seed) {
    Randomly random(seed + 500000);
    const PlannerOptions options = random.Options();
    PlanningInput input = random.Input(options.min_copies);
    random.HoldAnything(&input);
    const auto result = PlanPlacement(input, options);
    if (result.ok()) {
      EXPECT_EQ(CheckPlan(input, options, *result), "") << "seed " << seed;
    } else {
      EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted) << result.status();
      ++refused;
      wrongly_refused += RoomForCopies(input, options).IsEnough() ? 1 : 0;
    }
  }
  EXPECT_GT(refused, kCases / 20);
  EXPECT_LT(refused, kCases * 3 / 4);
  EXPECT_EQ(wrongly_refused, 0);
  RecordProperty("refused", refused);
}

// Plans that follow one another, each with other options than the one before.
TEST(PlacementPlannerHeldTest, OptionsMayChangeBetweenPlans) {
  int planned = 0;
  for (uint32_t seed = 0; seed < 1000; ++seed) {
    Randomly random(seed + 600000);
    PlanningInput input = random.Input(3);
    for (int step = 0; step < 4; ++step) {
      const PlannerOptions options = random.OptionsThatHoldBack(input);
      const auto result = PlanPlacement(input, options);
      if (!result.ok()) {
        ASSERT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted) << result.status();
        continue;
      }
      ++planned;
      ASSERT_EQ(CheckPlan(input, options, *result), "") << "seed " << seed << " step " << step;
      ASSERT_LE(result->bytes_loaded, options.byte_budget.value_or(result->bytes_loaded));
      ASSERT_EQ(result->load_seconds,
                options.bytes_per_second > 0
                    ? static_cast<double>(result->bytes_loaded) / options.bytes_per_second
                    : 0);
      for (const LayerForecast& layer : result->layers) {
        ASSERT_TRUE(!layer.changed || std::isinf(layer.present_fullest) || options.hysteresis < 1)
            << "seed " << seed << " step " << step;
      }
      input.present = result->plan;
      HoldCopiesOf(result->plan, &input.nodes);
      if (random.Chance(0.3)) {
        random.HoldAnything(&input);
      }
      for (LayerToPlan& layer : input.layers) {
        layer.loads = random.Loads(static_cast<uint32_t>(layer.loads.size()));
      }
    }
  }
  EXPECT_GT(planned, 2000);
}

// A third copy in zone b would be one too many.
TEST(PlacementPlannerHeldTest, CopiesInAZoneMakeWayForOnesInTheZonesThatAreMissing) {
  PlanningInput input = Mesh(6, 4, 6);
  for (uint32_t i = 0; i < 4; ++i) {
    input.nodes[i].zone = i < 2 ? "a" : "b";
  }
  input.nodes[0].held = input.nodes[1].held = {{3, {0, 1, 2, 3, 4, 5}}};
  PlannerOptions options;
  options.min_copies = options.max_copies = 2;
  const auto result = PlanPlacement(input, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(CheckPlan(input, options, *result), "");
  EXPECT_EQ(result->bytes_loaded, 600u);
  EXPECT_EQ(result->bytes_freed, 600u);
}

TEST(PlacementPlannerHeldTest, FewerCopiesThanAreHeldMayBeAsked) {
  PlanningInput input = Mesh(4, 3, 4);
  for (NodeToPlan& node : input.nodes) {
    node.held = {{3, {0, 1, 2, 3}}};
  }
  PlannerOptions options;
  options.max_copies = 2;
  const auto result = PlanPlacement(input, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(CheckPlan(input, options, *result), "");
  EXPECT_EQ(result->bytes_loaded, 0u);
  EXPECT_EQ(result->bytes_freed, 400u);
}

// Expert 0 gives up its copy on node-1, whose only slot expert 1 needs, and not the one on a node
// that expert 1 cannot get to.
TEST(PlacementPlannerHeldTest, CopiesOnNodesThatAcceptNoneLeaveSlotsToOthers) {
  PlanningInput input = Mesh(2, 2, 1);
  input.nodes[0].accepts_copies = false;
  input.nodes[0].held = input.nodes[1].held = {{3, {0}}};
  PlannerOptions options;
  options.max_copies = 1;
  const auto result = PlanPlacement(input, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(CheckPlan(input, options, *result), "");
  EXPECT_THAT(testing::PlannedOf(*result, 3),
              ::testing::ElementsAre(std::pair(0u, 0u), std::pair(1u, 1u)));
}

// They count as copies, and their zone as one that experts may be in and need not.
TEST(PlacementPlannerHeldTest, ZonesThatAcceptNoCopiesAreNotRequired) {
  PlanningInput input = Mesh(4, 3, 4);
  input.nodes[0].zone = "drains";
  input.nodes[0].accepts_copies = false;
  input.nodes[0].held = {{3, {0, 1}}};
  PlannerOptions options;
  options.min_copies = 2;
  const auto result = PlanPlacement(input, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(CheckPlan(input, options, *result), "");
  for (const uint32_t expert : {0, 1}) {
    EXPECT_EQ(testing::ZonesOf(input, result->plan.layers[0].experts[expert]), 2u);
  }
  EXPECT_EQ(result->bytes_loaded, 600u);
}

// Room for two copies of two experts, one of each on a node that accepts none.
TEST(PlacementPlannerHeldTest, RefusalsCountCopiesOnNodesThatAcceptNone) {
  PlanningInput input = Mesh(3, 2, 2);
  input.nodes[0].accepts_copies = false;
  input.nodes[0].held = {{3, {0, 1}}};
  PlannerOptions options;
  options.min_copies = 2;
  EXPECT_THAT(PlanPlacement(input, options).status().ToString(),
              ::testing::HasSubstr("layer 3 needs room for 4 copies (3 experts, min_copies 2, less "
                                   "2 on nodes that accept no copies), and the nodes have room "
                                   "for 2 of them"));
}

}  // namespace
}  // namespace expertmesh::balance
