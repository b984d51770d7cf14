#include "common/telemetry/expert_series.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace expertmesh::telemetry {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr CounterInfo kTokens = {"expertmesh_test_tokens_total", "layer,expert", "Tokens"};

class ExpertSeriesTest : public testing::Test {
 protected:
  ExpertSeries Make(ExpertMetrics mode, size_t top) {
    return ExpertSeries(&kTokens, {mode, top}, &clock_);
  }
  // "layer/expert=count" of each series.
  static std::vector<std::string> Shown(const prometheus::MetricFamily& family) {
    std::vector<std::string> shown;
    for (const prometheus::ClientMetric& metric : family.metric) {
      std::string layer;
      std::string expert;
      for (const prometheus::ClientMetric::Label& label : metric.label) {
        (label.name == "layer" ? layer : expert) = label.value;
      }
      shown.push_back(absl::StrCat(layer, "/", expert, "=", metric.counter.value));
    }
    return shown;
  }

  FakeClock clock_;
};

TEST_F(ExpertSeriesTest, FullHasAllAndOffNone) {
  const ExpertCounts counts = {{1, {{0, 5}, {1, 0}}}, {3, {{7, 2}}}};
  ExpertSeries full = Make(ExpertMetrics::kFull, 1);
  EXPECT_THAT(Shown(full.Collect(counts)), UnorderedElementsAre("1/0=5", "1/1=0", "3/7=2"));
  ExpertSeries off = Make(ExpertMetrics::kOff, 1);
  EXPECT_THAT(Shown(off.Collect(counts)), IsEmpty());
}

TEST_F(ExpertSeriesTest, TopHasTheBusiestOfEachLayer) {
  ExpertSeries top = Make(ExpertMetrics::kTop, 2);
  const ExpertCounts counts = {{1, {{0, 5}, {1, 9}, {2, 7}, {3, 1}}}, {2, {{0, 0}, {4, 3}}}};
  EXPECT_THAT(Shown(top.Collect(counts)), UnorderedElementsAre("1/1=9", "1/2=7", "2/0=0", "2/4=3"));
}

TEST_F(ExpertSeriesTest, BusyIsWhoGotMostOfLate) {
  ExpertSeries top = Make(ExpertMetrics::kTop, 1);
  EXPECT_THAT(Shown(top.Collect({{1, {{0, 1000}, {1, 0}}}})), UnorderedElementsAre("1/0=1000"));
  clock_.Advance(absl::Seconds(10));
  EXPECT_THAT(Shown(top.Collect({{1, {{0, 1001}, {1, 50}}}})), UnorderedElementsAre("1/1=50"));
  clock_.Advance(absl::Seconds(1));  // By what it had 11 s before.
  EXPECT_THAT(Shown(top.Collect({{1, {{0, 1100}, {1, 51}}}})), UnorderedElementsAre("1/0=1100"));
  clock_.Advance(absl::Seconds(9));
  EXPECT_THAT(Shown(top.Collect({{1, {{0, 1100}, {1, 149}}}})), UnorderedElementsAre("1/0=1100"));
  clock_.Advance(absl::Seconds(20));  // Nothing more: who got most in all.
  EXPECT_THAT(Shown(top.Collect({{1, {{0, 1100}, {1, 149}}}})), UnorderedElementsAre("1/0=1100"));
}

TEST_F(ExpertSeriesTest, AFlagSaysWhich) {
  EXPECT_EQ(ParseExpertMetrics("off", 3)->mode, ExpertMetrics::kOff);
  EXPECT_EQ(ParseExpertMetrics("top", 3)->mode, ExpertMetrics::kTop);
  EXPECT_EQ(ParseExpertMetrics("top", 3)->top, 3u);
  EXPECT_EQ(ParseExpertMetrics("full", 3)->mode, ExpertMetrics::kFull);
  EXPECT_THAT(std::string(ParseExpertMetrics("all", 3).status().message()), HasSubstr("'all'"));
}

}  // namespace
}  // namespace expertmesh::telemetry
