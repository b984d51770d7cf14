#include "client/cpp/command/statistics.h"

#include <gtest/gtest.h>

namespace expertmesh::command {
namespace {

TEST(StatisticsTest, PercentileIsTheNearestRank) {
  EXPECT_EQ(Percentile({}, 0.5), 0);
  EXPECT_EQ(Percentile({3}, 0.5), 3);
  EXPECT_EQ(Percentile({3}, 0.99), 3);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 0.5), 2);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 0.51), 3);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 0), 1);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 1), 4);
}

TEST(StatisticsTest, P99OfAHundredIsTheSecondLargest) {
  std::vector<double> values;
  for (int i = 100; i > 0; --i) {
    values.push_back(i);
  }
  EXPECT_EQ(Percentile(values, 0.99), 99);
  EXPECT_EQ(Percentile(values, 0.5), 50);
}

TEST(StatisticsTest, TableAlignsColumns) {
  EXPECT_EQ(FormatTable({{"layer", "ms"}, {"1", "10.25"}, {"12", "7"}}),
            "layer     ms\n"
            "    1  10.25\n"
            "   12      7\n");
}

}  // namespace
}  // namespace expertmesh::command
