#include "client/cpp/replay/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "client/cpp/replay/svg_chart.h"

namespace expertmesh::replay {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Report TwoIntervals() {
  Report report;
  report.load = "Zipf(1) <of \"layers\" & more>";
  report.interval_s = 10;
  report.layers = 3;
  report.mesh.nodes.resize(4);
  report.mesh.events = {{.at_s = 5, .kind = MeshEvent::Kind::kJoin, .node = 2}};
  PolicyResult policy;
  policy.name = "both";
  policy.intervals = {{.start_s = 0,
                       .tokens = 100,
                       .fullest = 2,
                       .fullest_worst = 4,
                       .changed_worst = .01,
                       .p99_us = 300,
                       .moves = 2,
                       .bytes = 2'000'000'000},
                      {.start_s = 10,
                       .tokens = 300,
                       .fullest = 1,
                       .fullest_worst = 1,
                       .changed_worst = .02,
                       .p99_us = 100,
                       .moves = 1,
                       .bytes = 1'000'000'000}};
  policy.failed_plans = 2;
  policy.failure = "no room";
  report.result.policies = {policy};
  return report;
}

TEST(SummariseTest, MeansAreWeightedWithTokens) {
  const IntervalFigures sum = Summarise(TwoIntervals().result.policies[0]);
  EXPECT_EQ(sum.fullest, 1.25);
  EXPECT_EQ(sum.fullest_worst, 4);
  EXPECT_EQ(sum.changed_worst, .02);
  EXPECT_EQ(sum.p99_us, 150);
  EXPECT_EQ(sum.moves, 3u);
  EXPECT_EQ(sum.bytes, 3'000'000'000u);
  EXPECT_EQ(sum.tokens, 400);
}

TEST(ReportTest, JsonHasEveryInterval) {
  Report report = TwoIntervals();
  report.load += "\xff";  // A file's name need not be UTF-8.
  const nlohmann::json json = nlohmann::json::parse(ToJson(report));
  EXPECT_EQ(json["nodes"], 4);
  EXPECT_EQ(json["events"][0]["kind"], "join");
  const nlohmann::json& policy = json["policies"][0];
  EXPECT_EQ(policy["summary"]["moves"], 3);
  EXPECT_EQ(policy["intervals"].size(), 2u);
  EXPECT_EQ(policy["intervals"][1]["start_s"], 10);
  EXPECT_EQ(policy["intervals"][1]["fullest_over_mean"], 1);
  EXPECT_EQ(policy["failure"], "no room");
}

TEST(ReportTest, ThePageNeedsNothingElse) {
  const std::string html = ToHtml(TwoIntervals());
  EXPECT_THAT(html, HasSubstr("Zipf(1) &lt;of &quot;layers&quot; &amp; more&gt;"));
  EXPECT_THAT(html, HasSubstr("<polyline"));
  EXPECT_THAT(html, HasSubstr("both: 2 plans could not be made; the last one because no room"));
  EXPECT_THAT(html, HasSubstr("None in this run."));
  EXPECT_THAT(html, Not(HasSubstr("href=")));
  EXPECT_THAT(html, Not(HasSubstr("src=")));
  EXPECT_THAT(html, Not(HasSubstr("<script")));
}

TEST(LineChartTest, PutsValuesWhereTheirScaleSays) {
  // The axis goes from 24 (2.16) to 250 (0): 2 is at 250 - 226 / 1.08.
  const std::string svg = LineChart({0, 10}, {{"a", {0, 2}}}, "x", 0);
  EXPECT_THAT(svg, HasSubstr("points=\"70.0,250.0 746.0,40.7\""));
  EXPECT_THAT(svg, HasSubstr(">0:00:10</text>"));
  EXPECT_THAT(svg, HasSubstr("stroke=\"#2f6fab\""));
}

TEST(LineChartTest, ADifferenceOfRoundingIsNone) {
  const double above = std::nextafter(std::nextafter(1.0, 2), 2);
  EXPECT_FALSE(IsAbove(above, 1));
  EXPECT_TRUE(IsAbove(1.001, 1));
  EXPECT_LT(LineChart({0, 1}, {{.name = "a", .values = {1, above}}}, "x", 1).size(), 4000u);
  Report report = TwoIntervals();
  for (IntervalFigures& figures : report.result.policies[0].intervals) {
    figures.fullest = figures.fullest_worst = above;
  }
  EXPECT_LT(ToHtml(report).size(), 40'000u);
}

TEST(LineChartTest, ScalesHaveAFewTicksWhateverTheirSize) {
  for (const double high : {1e-300, 1e-7, .3, 1.0, 7.0, 1e6, 1e300}) {
    const std::string svg = LineChart({0, 1}, {{.name = "a", .values = {0, high}}}, "x", 0);
    int ticks = 0;
    for (size_t at = 0; (at = svg.find("class=\"grid\"", at)) != std::string::npos; ++at) {
      ++ticks;
    }
    EXPECT_GE(ticks, 2) << high;
    EXPECT_LE(ticks, 12) << high;
  }
}

TEST(LineChartTest, ManyValuesBecomeMeans) {
  std::vector<double> times(4000);
  std::vector<double> values(4000);
  for (size_t i = 0; i < times.size(); ++i) {
    times[i] = static_cast<double>(i);
    values[i] = i % 2 == 0 ? 0 : 2;
  }
  const std::string svg = LineChart(times, {{"a", values}}, "x", 0);
  const std::string points = svg.substr(svg.find("points=\""));
  EXPECT_EQ(std::count(points.begin(), points.begin() + points.find('>'), ','), 400);
  EXPECT_THAT(points, HasSubstr(",145.4 ")) << "all at 1";
}

TEST(ShortNumberTest, HasThreeDigitsOrThousands) {
  EXPECT_EQ(ShortNumber(0), "0");
  EXPECT_EQ(ShortNumber(.001234), "0.00123");
  EXPECT_EQ(ShortNumber(12.34), "12.3");
  EXPECT_EQ(ShortNumber(1234567.4), "1,234,567");
  EXPECT_EQ(ShortNumber(-1234), "-1,234");
  EXPECT_EQ(ShortNumber(2e12), "2e+12");
}

}  // namespace
}  // namespace expertmesh::replay
