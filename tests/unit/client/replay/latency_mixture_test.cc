#include "client/cpp/replay/latency_mixture.h"

#include <gtest/gtest.h>

namespace expertmesh::replay {
namespace {

TEST(LatencyMixtureTest, OneNodeHasTheQuantilesOfANormalNumber) {
  LatencyMixture mixture;
  EXPECT_EQ(mixture.Quantile(.5), 0) << "no layers";
  mixture.Add(1, {{.mean_us = 100, .deviation_us = 10}});
  EXPECT_NEAR(mixture.Quantile(.5), 100, .1);
  EXPECT_NEAR(mixture.Quantile(.99), 123.263, .1);
}

TEST(LatencyMixtureTest, TheSlowestOfAllNodesDecides) {
  LatencyMixture mixture;
  mixture.Add(1, std::vector<NodeTime>(10, {.mean_us = 100, .deviation_us = 10}));
  // The median of the largest of ten: Phi^-1(0.5^(1/10)) = 1.49876.
  EXPECT_NEAR(mixture.Quantile(.5), 114.988, .1);
  LatencyMixture slow;
  slow.Add(1, {{100, 10}, {100, 10}, {1000, 1}});
  EXPECT_NEAR(slow.Quantile(.5), 1000, .2);
}

TEST(LatencyMixtureTest, ThereAreMoreOfSomeBatchesThanOfOthers) {
  LatencyMixture mixture;
  mixture.Add(3, {{100, 0}});
  mixture.Add(1, {{200, 0}});
  mixture.Add(0, {{300, 0}});
  EXPECT_NEAR(mixture.Quantile(.74), 100, .1);
  EXPECT_NEAR(mixture.Quantile(.76), 200, .1);
  EXPECT_NEAR(mixture.Quantile(.999), 200, .1);
}

TEST(LatencyMixtureTest, LayersAreMixed) {
  LatencyMixture mixture;
  mixture.Add(1, {});
  mixture.Add(1, {{100, 0}});
  mixture.Add(1, {{200, 0}});
  mixture.Add(1, {{300, 0}});
  mixture.Add(1, {{400, 0}});
  EXPECT_NEAR(mixture.Quantile(.5), 200, .1);
  EXPECT_NEAR(mixture.Quantile(.51), 300, .1);
  EXPECT_NEAR(mixture.Quantile(.99), 400, .1);
}

}  // namespace
}  // namespace expertmesh::replay
