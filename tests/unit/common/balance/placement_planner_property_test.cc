// Random loads, nodes and present placements, and what must hold for every plan.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/balance/placement_planner.h"
#include "tests/unit/common/balance/planning_checks.h"
#include "tests/unit/common/balance/random_planning_input.h"

namespace expertmesh::balance {
namespace {

using testing::CheckPlan;
using testing::Randomly;

// Plans that were found for `seeds`, each of which is right; the share of inputs that were refused
// is bounded, too: a planner that refuses is never wrong.
TEST(PlacementPlannerPropertyTest, EveryPlanKeepsItsPromises) {
  int refused = 0;
  constexpr int kCases = 1500;
  for (uint32_t seed = 0; seed < kCases; ++seed) {
    Randomly random(seed);
    const PlannerOptions options = random.Options();
    const PlanningInput input = random.Input(options.min_copies);
    const auto result = PlanPlacement(input, options);
    if (!result.ok()) {
      ASSERT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted) << result.status();
      ++refused;
      continue;
    }
    ASSERT_EQ(CheckPlan(input, options, *result), "") << "seed " << seed;
    ASSERT_EQ(result->decision, PlanDecision::kApply);
    const auto again = PlanPlacement(input, options);
    ASSERT_EQ(again->plan, result->plan) << "seed " << seed;
  }
  EXPECT_LT(refused, kCases / 5);
}

// Loads drift, nodes come, go and drain: each plan starts from the one before.
TEST(PlacementPlannerPropertyTest, EveryPlanThatFollowsAnotherDoes) {
  for (uint32_t seed = 0; seed < 400; ++seed) {
    Randomly random(seed + 100000);
    PlannerOptions options = random.Options();
    PlanningInput input = random.Input(options.min_copies);
    for (int step = 0; step < 4; ++step) {
      const auto result = PlanPlacement(input, options);
      if (!result.ok()) {
        ASSERT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted) << result.status();
        break;
      }
      ASSERT_EQ(CheckPlan(input, options, *result), "") << "seed " << seed << " step " << step;
      for (const LayerForecast& layer : result->layers) {
        const LayerPlacement& placement = testing::PlacementOf(*result, layer.layer);
        if (layer.changed) {
          EXPECT_LT(layer.fullest, layer.present_fullest * (1 - options.hysteresis));
        } else {
          EXPECT_EQ(placement.experts, testing::Renumbered(input, layer.layer));
        }
      }
      input.present = result->plan;
      HoldCopiesOf(result->plan, &input.nodes);
      for (LayerToPlan& layer : input.layers) {
        for (double& load : layer.loads) {
          load *= random.Real(0.3, 2);
        }
      }
      for (NodeToPlan& node : input.nodes) {
        node.accepts_copies = random.Chance(0.85);
      }
      if (random.Chance(0.3) && input.nodes.size() > options.min_copies) {
        input.nodes.erase(input.nodes.begin() + random.Int(0, input.nodes.size() - 1));
      }
      options.hysteresis = random.Chance(0.5) ? 0 : random.Real(0, 0.3);
    }
  }
}

TEST(PlacementPlannerPropertyTest, WhatIsPlannedTwiceMovesNothing) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    Randomly random(seed + 200000);
    const PlannerOptions options = random.Options();
    PlanningInput input = random.Input(options.min_copies);
    const auto first = PlanPlacement(input, options);
    if (!first.ok()) {
      continue;
    }
    input.present = first->plan;
    HoldCopiesOf(first->plan, &input.nodes);
    PlannerOptions steady = options;
    steady.hysteresis = 0.01;
    const auto second = PlanPlacement(input, steady);
    ASSERT_TRUE(second.ok()) << second.status();
    EXPECT_EQ(second->bytes_loaded, 0u) << "seed " << seed << ": " << second->reason;
    if (second->decision == PlanDecision::kKeep) {
      EXPECT_EQ(second->plan, first->plan);
    }
  }
}

TEST(PlacementPlannerPropertyTest, BudgetsAreKeptAndUsedWhereTheyGainMost) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    Randomly random(seed + 300000);
    PlannerOptions options = random.Options();
    PlanningInput input = random.Input(options.min_copies);
    const auto first = PlanPlacement(input, options);
    if (!first.ok()) {
      continue;
    }
    input.present = first->plan;
    HoldCopiesOf(first->plan, &input.nodes);
    for (LayerToPlan& layer : input.layers) {
      layer.loads = random.Loads(static_cast<uint32_t>(layer.loads.size()));
    }
    const auto all = PlanPlacement(input, options);
    ASSERT_TRUE(all.ok());
    double before = std::numeric_limits<double>::infinity();
    for (const double share : {0.0, 0.25, 0.5, 1.0}) {
      options.byte_budget = static_cast<uint64_t>(share * static_cast<double>(all->bytes_loaded));
      const auto result = PlanPlacement(input, options);
      ASSERT_TRUE(result.ok()) << result.status();
      ASSERT_EQ(CheckPlan(input, options, *result), "") << "seed " << seed;
      EXPECT_LE(result->bytes_loaded, *options.byte_budget);
      double sum = 0;
      for (const LayerForecast& layer : result->layers) {
        sum += layer.fullest;
      }
      EXPECT_LE(sum, before * (1 + 1e-9)) << "seed " << seed << " with " << share;
      before = sum;
    }
  }
}

// Against every placement that there is, on meshes small enough for that.
TEST(PlacementPlannerPropertyTest, TheFullestNodeIsAtOrNearTheLeastThereIs) {
  int cases = 0;
  int optimal = 0;
  double worst = 0;
  for (uint32_t seed = 0; seed < 600; ++seed) {
    Randomly random(seed + 400000);
    const uint32_t experts = random.Int(1, 5);
    const uint32_t nodes = random.Int(1, 3);
    const uint32_t min_copies = random.Int(1, std::min(2u, nodes));
    const uint32_t max_copies = random.Int(min_copies, nodes);
    PlanningInput input;
    input.layers.push_back({0, 1, random.Loads(experts)});
    double sum = 0;
    for (const double load : input.layers[0].loads) {
      sum += load;
    }
    std::vector<double> rates;
    std::vector<uint32_t> slots;
    for (uint32_t i = 0; i < nodes; ++i) {
      NodeToPlan& node = input.nodes.emplace_back();
      node.node_id = absl::StrCat(i);
      node.speed = random.Chance(0.5) ? 1 : random.Real(0.3, 3);
      slots.push_back(std::min(experts, random.Int(1, 4)));
      node.capacity_bytes = slots.back();
      rates.push_back(node.speed);
    }
    PlannerOptions options;
    options.min_copies = min_copies;
    options.max_copies = max_copies;
    options.spread_zones = false;
    const auto result = PlanPlacement(input, options);
    const double best =
        testing::BestPlacement(input.layers[0].loads, rates, slots, static_cast<int>(min_copies),
                               static_cast<int>(max_copies))
            .Find();
    ASSERT_EQ(result.ok(), std::isfinite(best)) << "seed " << seed << " " << result.status();
    if (!result.ok() || sum == 0) {
      continue;
    }
    ++cases;
    const LayerForecast& layer = result->layers[0];
    ASSERT_LE(layer.lower_bound, best * (1 + 1e-9)) << "seed " << seed;
    ASSERT_GE(layer.fullest, best * (1 - 1e-9)) << "seed " << seed;
    worst = std::max(worst, layer.fullest / best);
    optimal += layer.fullest <= best * (1 + options.tolerance + 1e-9) ? 1 : 0;
  }
  ASSERT_GT(cases, 300);
  EXPECT_GT(optimal, cases * 9 / 10);
  EXPECT_LT(worst, 1.25);
  RecordProperty("worst", absl::StrCat(worst));
  RecordProperty("optimal", absl::StrCat(optimal, " of ", cases));
}

}  // namespace
}  // namespace expertmesh::balance
