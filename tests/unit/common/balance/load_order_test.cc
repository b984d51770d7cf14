#include "common/balance/load_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace expertmesh::balance {
namespace {

using ::testing::ElementsAre;

TEST(LoadOrderTest, LargestFirstAndTiesByIndex) {
  LoadOrder order;
  order.Sort(std::vector<double>{2, 0, 5, 2, 1e-300, 5});
  EXPECT_THAT(order.experts(), ElementsAre(2, 5, 0, 3, 1, 4));
}

TEST(LoadOrderTest, AnyUnit) {
  std::mt19937 random(3);
  LoadOrder order;
  for (const double unit : {1e-200, 1.0, 1e200}) {
    std::vector<double> loads(1 + (random() % 600));
    for (double& load : loads) {
      load = unit * std::exp(static_cast<double>(random() % 4000) / 400);
    }
    std::vector<uint32_t> expected(loads.size());
    std::iota(expected.begin(), expected.end(), 0);
    std::stable_sort(expected.begin(), expected.end(),
                     [&](uint32_t a, uint32_t b) { return loads[a] > loads[b]; });
    order.Sort(loads);
    EXPECT_EQ(std::vector<uint32_t>(order.experts().begin(), order.experts().end()), expected);
  }
}

}  // namespace
}  // namespace expertmesh::balance
