#include "client/cpp/command/top_report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cpp/command/text_columns.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

NodeFigures NodeNamed(const std::string& id) {
  NodeFigures figures;
  figures.node.node_id = id;
  figures.node.link = client::Link::kUp;
  figures.node.batches_in_flight = 2;
  figures.node.rows_in_flight = 1234;
  figures.node.link_time_per_assignment = absl::Nanoseconds(4500);
  figures.assignments_per_second = 12345.4;
  figures.compute_each = absl::Nanoseconds(3250);
  figures.busy = 0.75;
  return figures;
}

class TopReportTest : public testing::Test {
 protected:
  TopReportTest() {
    reading_.time = absl::FromUnixSeconds(1'700'000'000);
    reading_.topology.epoch = 17;
    reading_.topology.ready = true;
    figures_.interval = absl::Seconds(1);
    figures_.tokens_per_second = 4321;
    figures_.layer_tokens_per_second = 8642;
    figures_.window = absl::Seconds(10);
  }

  void Fill(size_t nodes, size_t layers, size_t experts) {
    for (size_t i = 0; i < nodes; ++i) {
      figures_.nodes.push_back(NodeNamed(absl::StrCat("node", i)));
      reading_.topology.nodes.push_back(figures_.nodes.back().node);
    }
    for (size_t i = 0; i < layers; ++i) {
      LayerFigures& layer = figures_.layers.emplace_back();
      layer.layer = static_cast<uint32_t>(i);
      layer.tokens_per_second = 4321;
      layer.max_violation = 0.25;
      layer.busy = 1.5;
      layer.compared_tokens = 1000;
      layer.changed_tokens = 15;
    }
    for (size_t i = 0; i < experts; ++i) {
      figures_.experts.push_back({3, static_cast<uint32_t>(i), 500, 4.25});
    }
    for (const char* name : {"queue", "route", "nodes", "combine", "all"}) {
      figures_.stages.push_back(
          {name, absl::Microseconds(1250), absl::Microseconds(2500), absl::Microseconds(5000)});
    }
    reading_.stages.requests.resize(20);
    reading_.stages.kept = {{"sampled", 12}, {"slow", 8}};
  }

  std::vector<std::string> Draw(const FrameSize& size = {}) const {
    return DrawTop("localhost:50050", reading_, figures_, size);
  }
  std::string Text(const FrameSize& size = {}) const { return absl::StrJoin(Draw(size), "\n"); }

  TopReading reading_;
  TopFigures figures_;
};

size_t Widest(const std::vector<std::string>& lines) {
  size_t widest = 0;
  for (const std::string& line : lines) {
    widest = std::max(widest, ColumnsOf(line));
  }
  return widest;
}

TEST_F(TopReportTest, AFrameShowsEveryFigure) {
  Fill(1, 1, 1);
  EXPECT_EQ(Text(),
            "expertmesh top  localhost:50050  22:13:20 UTC  epoch 17  ready\n"
            "tokens/s 4,321 (all layers 8,642)  in flight 2 batches, 1,234 rows\n"
            "\n"
            "node   link  batches   rows  assigned/s  us each  busy  link us\n"
            "node0    up        2  1,234      12,345      3.2  0.75      4.5\n"
            "\n"
            "layer  tokens/s  MaxVio  changed  busy    hottest in 10 s  expert  x even\n"
            "0         4,321    0.25    1.50%  1.50    layer 3               0    4.25\n"
            "\n"
            "ms       queue  route  nodes  combine   all   of 20 recent traces:\n"
            "median    1.25   1.25   1.25     1.25  1.25   12 sampled, 8 slow\n"
            "90 %      2.50   2.50   2.50     2.50  2.50\n"
            "longest   5.00   5.00   5.00     5.00  5.00");
}

TEST_F(TopReportTest, TheFirstFrameSaysThatRatesComeWithTheNext) {
  Fill(1, 1, 0);
  figures_.interval.reset();
  figures_.nodes[0].assignments_per_second.reset();
  EXPECT_THAT(Draw()[1], StartsWith("rates come with the next frame"));
  EXPECT_THAT(Text(), Not(HasSubstr("12,345")));
}

TEST_F(TopReportTest, AFrameKeepsToItsSizeAndSaysHowMuchItLeavesOut) {
  Fill(30, 60, 20);
  for (const size_t lines : {12, 24, 25, 50, 70}) {
    for (const size_t columns : {40, 80, 200}) {
      const std::vector<std::string> frame = Draw({.columns = columns, .lines = lines});
      EXPECT_LE(frame.size(), lines);
      EXPECT_GE(frame.size() + 1, lines) << "nearly all of it is used";
      EXPECT_LE(Widest(frame), columns);
      EXPECT_THAT(frame, Contains(StartsWith("longest")));
    }
  }
  EXPECT_THAT(Text({.columns = 80, .lines = 24}),
              AllOf(HasSubstr("node (7 of 30)"), HasSubstr("layer (6 of 60)")));
  EXPECT_THAT(Text(), AllOf(HasSubstr("node29"), Not(HasSubstr(" of 30"))));
}

TEST_F(TopReportTest, ALongTableTakesTheRoomThatTheOtherLeaves) {
  Fill(2, 60, 20);
  EXPECT_THAT(Text({.columns = 80, .lines = 24}),
              AllOf(HasSubstr("node1"), HasSubstr("layer (11 of 60)")));
}

TEST_F(TopReportTest, WhyANodeIsNotUpTakesThePlaceOfItsFigures) {
  Fill(2, 1, 0);
  figures_.nodes[0].node.link = client::Link::kDown;
  figures_.nodes[0].node.reason = "connection refused" + std::string(200, '!');
  EXPECT_THAT(Draw()[4], StartsWith("node0  down  connection refused!!"));
  EXPECT_EQ(ColumnsOf(Draw()[4]), 80u);
  EXPECT_THAT(Draw()[5], HasSubstr("12,345"));
  figures_.nodes[0].node.link = client::Link::kDraining;
  figures_.nodes[0].node.reason = "";
  EXPECT_THAT(Draw()[4], AllOf(HasSubstr("draining"), HasSubstr("12,345")));
}

TEST_F(TopReportTest, WhatIsWrongWithTheMeshStandsAbove) {
  Fill(1, 1, 0);
  reading_.topology.ready = false;
  reading_.topology.missing = {{1, {0, 1, 2}}};
  reading_.topology.lookup_error = "no such host";
  reading_.topology.balance.role = client::BalanceRole::kFollower;
  reading_.topology.balance.reason = "the authority is silent";
  const std::vector<std::string> frame = Draw();
  EXPECT_THAT(frame[0], HasSubstr("NOT READY"));
  EXPECT_EQ(frame[2], "MISSING layer 1: experts 0-2");
  EXPECT_THAT(frame[3], HasSubstr("no such host"));
  EXPECT_EQ(frame[4], "BALANCING NOT ALIVE: the authority is silent");
}

TEST_F(TopReportTest, WithoutTracesItSaysWhy) {
  EXPECT_EQ(Draw().back(), "no stage times: no trace was kept yet");
  reading_.stages.status = absl::FailedPreconditionError("start it without --tracing=off");
  EXPECT_EQ(Draw().back(), "no stage times: start it without --tracing=off");
}

TEST_F(TopReportTest, TextsOfPeersCannotCommandTheTerminal) {
  figures_.nodes.push_back(NodeNamed("\x1b[2Jevil\xff"));
  figures_.nodes.push_back(NodeNamed("down"));
  figures_.nodes[1].node.link = client::Link::kDown;
  figures_.nodes[1].node.reason = "a\nb\x1b]0;title\x07";
  reading_.stages.status = absl::InternalError("\x1b[31m");
  reading_.topology.lookup_error =
      "\x9b"
      "31m";
  std::string all = Text({.columns = 200, .lines = 0}) + TopJson("r:1", reading_, figures_);
  for (const std::string& line :
       DrawAway("r:1", absl::UnavailableError("\x1b[2J"), reading_.time, reading_.time, {})) {
    all += line;
  }
  for (const char c : all) {
    EXPECT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f)) << static_cast<int>(c);
  }
  EXPECT_THAT(all, HasSubstr("\\x1b[2Jevil\\xff"));
}

TEST_F(TopReportTest, ARouterThatIsAwayIsNamedWithTheTimeOfItsLastAnswer) {
  const absl::Time last = absl::FromUnixSeconds(1'700'000'000);
  const absl::Status why = absl::UnavailableError("connection refused");
  const auto lines = DrawAway("r:1", why, last + absl::Seconds(5), last, {});
  EXPECT_EQ(lines[0], "expertmesh top  r:1  22:13:25 UTC");
  EXPECT_EQ(lines[1], "NO ANSWER since 22:13:20 UTC; trying on: connection refused");
  EXPECT_THAT(DrawAway("r:1", why, last, absl::InfinitePast(), {})[1],
              StartsWith("NO ANSWER yet; "));
  const auto json = nlohmann::json::parse(AwayJson("r:1", why, last));
  EXPECT_EQ(json["error"], "connection refused");
  EXPECT_EQ(json["unix_ms"], 1'700'000'000'000);
}

TEST_F(TopReportTest, JsonHasTheSameFiguresInOneLine) {
  Fill(1, 1, 1);
  const std::string text = TopJson("r:1", reading_, figures_);
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["interval_s"], 1);
  EXPECT_EQ(json["tokens_per_second"], 4321);
  EXPECT_EQ(json["nodes"][0]["assignments_per_second"], 12345.4);
  EXPECT_EQ(json["nodes"][0]["compute_us_per_assignment"], 3.25);
  EXPECT_EQ(json["nodes"][0]["link_us_per_assignment"], 4.5);
  EXPECT_EQ(json["layers"][0]["busy"], 1.5);
  EXPECT_EQ(json["layers"][0]["changed_tokens"], 15);
  EXPECT_EQ(json["hottest_experts"][0]["over_even"], 4.25);
  EXPECT_EQ(json["stages"]["nodes"]["p90_us"], 2500);
  EXPECT_EQ(json["stages"]["kept"]["slow"], 8);
  figures_.interval.reset();
  figures_.layers[0].busy.reset();
  const auto first = nlohmann::json::parse(TopJson("r:1", reading_, figures_));
  EXPECT_TRUE(first["interval_s"].is_null());
  EXPECT_TRUE(first["layers"][0]["busy"].is_null());
}

TEST(TextColumnsTest, TextIsCutBetweenCharacters) {
  EXPECT_EQ(FitColumns("abcdef", 6), "abcdef");
  EXPECT_EQ(FitColumns("abcdef", 5), "abcd~");
  EXPECT_EQ(FitColumns("abcdef", 0), "");
  // Each takes two.
  EXPECT_EQ(ColumnsOf("a字ü"), 5u);
  EXPECT_EQ(FitColumns("字字字", 6), "字字字");
  EXPECT_EQ(FitColumns("字字字", 5), "字字~");
  EXPECT_EQ(FitColumns("字字字", 4), "字~");
}

TEST(TextColumnsTest, TheFirstColumnGivesWay) {
  EXPECT_EQ(TableLines({{"name", "number"}, {"a-long-long-name", "12"}}, 20),
            (std::vector<std::string>{"name          number", "a-long-long~      12"}));
  EXPECT_THAT(TableLines({}, 20), IsEmpty());
  // Where that is not enough, lines are cut.
  EXPECT_EQ(TableLines({{"a-long-name", "123456789"}}, 12),
            (std::vector<std::string>{"a-long-~  1~"}));
}

}  // namespace
}  // namespace expertmesh::command
