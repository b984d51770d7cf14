#include "common/balance/layer_planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace expertmesh::balance {
namespace {

constexpr double kTolerance = 0.001;

// Experts with Zipf loads in turn on nodes that have two slots more each.
class LayerPlannerTest : public ::testing::Test {
 protected:
  void Begin(uint32_t experts, uint32_t nodes) {
    for (uint32_t expert = 0; expert < experts; ++expert) {
      loads_.push_back(1.0 / (expert + 1));
    }
    rates_.assign(nodes, 1);
    slots_.assign(nodes, ((experts + nodes - 1) / nodes) + 2);
    zones_.assign(nodes, 0);
    accepts_.assign(nodes, 1);
    problem_ = {loads_, rates_, slots_, zones_, accepts_, 1, nodes, 1};
    planner_.Begin(problem_);
    for (uint32_t expert = 0; expert < experts; ++expert) {
      planner_.AddHeld(expert, expert % nodes, loads_[expert]);
    }
  }

  std::vector<double> loads_;
  std::vector<double> rates_;
  std::vector<uint32_t> slots_;
  std::vector<uint32_t> zones_;
  std::vector<uint8_t> accepts_;
  LayerProblem problem_;
  LayerPlanner planner_;
};

// Each is planned for: what a budget costs.
TEST_F(LayerPlannerTest, StepsAreFewHoweverManyLoadsThereAre) {
  Begin(256, 144);
  ASSERT_TRUE(planner_.Plan(kTolerance));
  ASSERT_GE(planner_.loads(), 40u);
  const double least = planner_.level();
  std::vector<LayerPlanner::Step> steps;
  ASSERT_TRUE(planner_.PlanSteps(kTolerance, &steps));
  EXPECT_GE(steps.size(), 6u);
  EXPECT_LE(steps.size(), 9u);
  EXPECT_EQ(steps[0].loads, 0u);
  for (size_t i = 1; i < steps.size(); ++i) {
    EXPECT_GT(steps[i].loads, steps[i - 1].loads);
    EXPECT_LT(steps[i].level, steps[i - 1].level);
  }
  EXPECT_LE(steps.back().level, 1.01 * least);
}

TEST_F(LayerPlannerTest, AStepIsPlannedAsItWasOfferedAndGoesOnWhereItMay) {
  Begin(256, 32);
  std::vector<LayerPlanner::Step> steps;
  ASSERT_TRUE(planner_.PlanSteps(kTolerance, &steps));
  for (size_t i = 0; i < steps.size(); ++i) {
    ASSERT_TRUE(planner_.PlanToStep(kTolerance, i, 0));
    EXPECT_LE(planner_.loads(), steps[i].loads);
    EXPECT_LE(planner_.level(), steps[i].level * (1 + 1e-9));
  }
  ASSERT_TRUE(planner_.PlanToStep(kTolerance, 1, steps[1].loads + 3));
  EXPECT_LE(planner_.loads(), steps[1].loads + 3);
  EXPECT_LT(planner_.level(), steps[1].level);
}

}  // namespace
}  // namespace expertmesh::balance
