#include "client/cpp/replay/synthetic_load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace expertmesh::replay {
namespace {

using ::testing::HasSubstr;

const std::vector<balance::RecordedLayer> kLayers = {{.layer = 1, .num_experts = 16, .top_k = 1},
                                                     {.layer = 2, .num_experts = 16, .top_k = 1}};

SyntheticLoad Make(const std::string& text, SyntheticTraffic traffic) {
  return SyntheticLoad(ParseSyntheticLoad(text).value(), traffic, kLayers);
}

std::vector<IntervalLoad> All(const std::string& text, const SyntheticTraffic& traffic) {
  SyntheticLoad load = Make(text, traffic);
  std::vector<IntervalLoad> all(load.intervals());
  for (IntervalLoad& interval : all) {
    load.Next(&interval);
  }
  return all;
}

std::vector<double> Sorted(std::vector<double> values) {
  std::sort(values.begin(), values.end(), std::greater<>());
  return values;
}

TEST(SyntheticLoadTest, ZipfHasTheWeightsOfItsRanks) {
  const auto all = All("zipf:1.0", {.tokens_per_second = 100, .interval_s = 10, .intervals = 2});
  double harmonic = 0;
  for (int rank = 1; rank <= 16; ++rank) {
    harmonic += 1.0 / rank;
  }
  const std::vector<double> sorted = Sorted(all[0].layers[0].assignments);
  for (int rank = 1; rank <= 16; ++rank) {
    EXPECT_NEAR(sorted[rank - 1], 1000 / harmonic / rank, 1000 * .05) << rank;
  }
  EXPECT_NEAR(std::accumulate(sorted.begin(), sorted.end(), 0.0), 1000, 1e-3);
  EXPECT_EQ(all[0].layers[0].assignments, all[1].layers[0].assignments) << "nothing drifts";
  EXPECT_NE(all[0].layers[0].assignments, all[0].layers[1].assignments) << "ranks of its own";
  EXPECT_EQ(all[1].start_s, 10);
}

TEST(SyntheticLoadTest, WeightsOfHotAndUniform) {
  const std::vector<double> hot = LogWeights(ParseSyntheticLoad("hot:2:0.5").value(), 6);
  EXPECT_NEAR(std::exp(hot[1]), .25, 1e-12);
  EXPECT_NEAR(std::exp(hot[2]), .125, 1e-12);
  EXPECT_NEAR(std::exp(LogWeights(ParseSyntheticLoad("uniform").value(), 5)[4]), .2, 1e-12);
  // All are hot: no others have the rest.
  EXPECT_NEAR(std::exp(LogWeights(ParseSyntheticLoad("hot:6:0.5").value(), 6)[0]), 1.0 / 6, 1e-12);
}

TEST(SyntheticLoadTest, ASeedIsALoad) {
  const SyntheticTraffic traffic = {.intervals = 5, .seed = 3};
  SyntheticTraffic other = traffic;
  other.seed = 4;
  const auto a = All("zipf:1+drift:2", traffic);
  const auto b = All("zipf:1+drift:2", traffic);
  const auto c = All("zipf:1+drift:2", other);
  EXPECT_EQ(a[4].layers[1].assignments, b[4].layers[1].assignments);
  EXPECT_EQ(a[4].layers[1].noise, b[4].layers[1].noise);
  EXPECT_NE(a[4].layers[1].assignments, c[4].layers[1].assignments);
}

TEST(SyntheticLoadTest, DriftMovesPopularityAndKeepsItsShape) {
  const auto all = All("zipf:1+drift:1", {.interval_s = 60, .intervals = 120});
  const std::vector<double>& first = all[0].layers[0].assignments;
  const std::vector<double>& last = all[119].layers[0].assignments;
  EXPECT_NE(first, last);
  const std::vector<double> before = Sorted(first);
  const std::vector<double> after = Sorted(last);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_NEAR(before[i], after[i], 1e-6 * before[i]);
  }
  // Little changes in a minute of what takes an hour.
  double moved = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    moved += std::fabs(first[i] - all[1].layers[0].assignments[i]);
  }
  EXPECT_LT(moved, .25 * std::accumulate(first.begin(), first.end(), 0.0));
}

TEST(SyntheticLoadTest, DiurnalTrafficSwings) {
  const auto all =
      All("uniform+diurnal:0.5",
          {.tokens_per_second = 10, .batch_tokens = 1, .interval_s = 6 * 3600, .intervals = 4});
  EXPECT_NEAR(all[0].layers[0].tokens, 216'000, 1e-6);
  EXPECT_NEAR(all[1].layers[0].tokens, 324'000, 1e-6);
  EXPECT_NEAR(all[3].layers[0].tokens, 108'000, 1e-6);
}

TEST(ParseSyntheticLoadTest, NamesWhatIsWrong) {
  const auto error = [](const std::string& text) {
    const auto parsed = ParseSyntheticLoad(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
    return std::string(parsed.status().message());
  };
  EXPECT_THAT(error(""), HasSubstr("load has ''"));
  EXPECT_THAT(error("zipf"), HasSubstr("load has 'zipf'; use uniform, zipf:EXPONENT"));
  EXPECT_THAT(error("zipf:-1"), HasSubstr("'-1' in load part 'zipf:-1' must be from 0 to 10"));
  EXPECT_THAT(error("zipf:nan"), HasSubstr("'nan'"));
  EXPECT_THAT(error("hot:0:0.5"), HasSubstr("'0' in load part 'hot:0:0.5'"));
  EXPECT_THAT(error("hot:2:1"), HasSubstr("must be from 0.001 to 0.999"));
  EXPECT_THAT(error("uniform+tide:1"), HasSubstr("load has 'tide:1'"));
  EXPECT_THAT(error("uniform+diurnal:2"), HasSubstr("must be from 0 to 1"));
}

}  // namespace
}  // namespace expertmesh::replay
