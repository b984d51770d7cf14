#include "common/balance/load_levelling.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <vector>

#include "tests/unit/common/balance/planning_checks.h"

namespace expertmesh::balance {
namespace {

// Against the least there is, by all sets of experts.
TEST(LoadLevellingTest, SharesAreTheBestThatTheCopiesAllow) {
  std::mt19937 random(5);
  LayerCopies copies;
  LoadLevelling levelling;
  for (int round = 0; round < 2000; ++round) {
    const uint32_t experts = 1 + (random() % 7);
    const uint32_t nodes = 1 + (random() % 6);
    std::vector<double> loads(experts);
    std::vector<double> rates(nodes);
    for (double& load : loads) {
      load = static_cast<double>(random() % 5) * static_cast<double>(random() % 100);
    }
    for (double& rate : rates) {
      rate = 0.5 + (static_cast<double>(random() % 100) / 50);
    }
    const std::vector<uint32_t> slots(nodes, experts);
    const std::vector<uint32_t> zones(nodes);
    const std::vector<uint8_t> accepts(nodes, 1);
    const LayerProblem problem = {loads, rates, slots, zones, accepts, 1, nodes, 1};
    copies.Reset(problem);
    std::vector<uint32_t> placed(experts);
    for (uint32_t expert = 0; expert < experts; ++expert) {
      placed[expert] = 1 + (random() % ((1u << nodes) - 1));
      double rows = loads[expert];  // All of them on the first.
      for (uint32_t node = 0; node < nodes; ++node) {
        if ((placed[expert] >> node & 1) != 0) {
          copies.Add(expert, node, std::exchange(rows, 0));
        }
      }
    }
    const double all_loads = std::accumulate(loads.begin(), loads.end(), 0.0);
    const double all_rates = std::accumulate(rates.begin(), rates.end(), 0.0);
    const double level = levelling.LevelOut(&copies, all_loads / all_rates);
    EXPECT_NEAR(level, testing::LeastFullest(loads, rates, placed), 1e-9 * (1 + level));
    EXPECT_EQ(level, copies.FullestLevel());
    std::vector<double> rows(experts);
    for (uint32_t node = 0; node < nodes; ++node) {
      for (uint32_t at = copies.first_of_node(node); at != LayerCopies::kNone;
           at = copies.copy(at).next_of_node) {
        EXPECT_GE(copies.copy(at).rows, 0);
        rows[copies.copy(at).expert] += copies.copy(at).rows;
      }
    }
    for (uint32_t expert = 0; expert < experts; ++expert) {
      EXPECT_NEAR(rows[expert], loads[expert], 1e-9 * (1 + loads[expert]));
    }
  }
}

}  // namespace
}  // namespace expertmesh::balance
