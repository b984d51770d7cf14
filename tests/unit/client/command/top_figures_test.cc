#include "client/cpp/command/top_figures.h"

#include "common/trace/resource.h"
#include "common/trace/span_writer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::command {
namespace {

using ::testing::DoubleEq;
using ::testing::Optional;

client::NodeInfo NodeAt(const std::string& address, uint64_t assignments, int64_t compute_ms) {
  client::NodeInfo node;
  node.address = address;
  node.link = client::Link::kUp;
  node.computed_assignments = assignments;
  node.compute_time = absl::Milliseconds(compute_ms);
  return node;
}

client::LayerLoad LayerAt(uint32_t layer, uint64_t tokens, int64_t node_ms) {
  client::LayerLoad load;
  load.layer = layer;
  load.tokens = tokens;
  load.node_time = absl::Milliseconds(node_ms);
  return load;
}

// Counters of layers are read half a second after those of nodes.
TopReading ReadingAt(absl::Duration when) {
  TopReading reading;
  reading.nodes_at = absl::UnixEpoch() + when;
  reading.layers_at = absl::UnixEpoch() + when + absl::Milliseconds(500);
  reading.topology.revision = 5;
  reading.topology.balance.term = 3;
  return reading;
}

class TopFiguresTest : public testing::Test {
 protected:
  TopReading before_ = ReadingAt(absl::ZeroDuration());
  // Two seconds later for nodes, four for layers.
  TopReading now_ = [] {
    TopReading reading = ReadingAt(absl::Seconds(2));
    reading.layers_at += absl::Seconds(2);
    return reading;
  }();
};

TEST_F(TopFiguresTest, RatesAreDifferencesOfCountersOverTheirTime) {
  before_.topology.nodes = {NodeAt("a:1", 1000, 100)};
  now_.topology.nodes = {NodeAt("a:1", 1600, 1300)};
  before_.since_start.layers = {LayerAt(0, 100, 1000), LayerAt(1, 100, 1000)};
  now_.since_start.layers = {LayerAt(0, 140, 1000), LayerAt(1, 180, 3000)};
  const TopFigures figures = FiguresOf(now_, &before_);
  EXPECT_EQ(figures.interval, absl::Seconds(4));
  const NodeFigures& node = figures.nodes.at(0);
  EXPECT_THAT(node.assignments_per_second, Optional(DoubleEq(300)));
  EXPECT_THAT(node.busy, Optional(DoubleEq(0.6)));
  EXPECT_EQ(node.compute_each, absl::Milliseconds(2));
  const LayerFigures& first = figures.layers.at(0);
  EXPECT_EQ(first.layer, 1u);
  EXPECT_THAT(first.tokens_per_second, Optional(DoubleEq(20)));
  EXPECT_THAT(first.busy, Optional(DoubleEq(0.5)));
  EXPECT_THAT(figures.layers.at(1).tokens_per_second, Optional(DoubleEq(10)));
  EXPECT_THAT(figures.tokens_per_second, Optional(DoubleEq(20)));
  EXPECT_THAT(figures.layer_tokens_per_second, Optional(DoubleEq(30)));
}

TEST_F(TopFiguresTest, WithoutAnEarlierReadingThereAreNoRates) {
  now_.topology.nodes = {NodeAt("a:1", 1600, 1300)};
  now_.since_start.layers = {LayerAt(0, 140, 1000)};
  const TopFigures figures = FiguresOf(now_, nullptr);
  EXPECT_FALSE(figures.interval.has_value());
  EXPECT_FALSE(figures.tokens_per_second.has_value());
  EXPECT_FALSE(figures.nodes.at(0).assignments_per_second.has_value());
  EXPECT_FALSE(figures.nodes.at(0).compute_each.has_value());
  EXPECT_FALSE(figures.layers.at(0).busy.has_value());
  EXPECT_EQ(figures.layers.at(0).tokens, 140u);
}

TEST_F(TopFiguresTest, ARouterThatWasStartedAgainHasNoRatesThoughItsCountersAreHigher) {
  before_.since_start.layers = {LayerAt(0, 100, 0)};
  now_.since_start.layers = {LayerAt(0, 140, 0)};
  now_.topology.revision = 4;
  EXPECT_FALSE(FiguresOf(now_, &before_).interval.has_value());
  now_.topology.revision = 6;
  EXPECT_TRUE(FiguresOf(now_, &before_).interval.has_value());
  now_.topology.balance.term = 4;
  EXPECT_FALSE(FiguresOf(now_, &before_).tokens_per_second.has_value());
}

TEST_F(TopFiguresTest, ACounterThatFellHasNoRateAndANodeThatComputedNothingNoTimeOfOne) {
  before_.topology.nodes = {NodeAt("a:1", 1000, 100), NodeAt("b:1", 50, 70)};
  now_.topology.nodes = {NodeAt("a:1", 10, 1), NodeAt("b:1", 50, 70), NodeAt("new:1", 9, 9)};
  const TopFigures figures = FiguresOf(now_, &before_);
  EXPECT_FALSE(figures.nodes.at(0).assignments_per_second.has_value());
  EXPECT_THAT(figures.nodes.at(1).assignments_per_second, Optional(DoubleEq(0)));
  EXPECT_FALSE(figures.nodes.at(1).compute_each.has_value());
  EXPECT_FALSE(figures.nodes.at(2).busy.has_value());
}

TEST_F(TopFiguresTest, NodesThatAreNotUpComeFirstThenTheBusiest) {
  before_.topology.nodes = {NodeAt("idle:1", 0, 0), NodeAt("busy:1", 0, 0), NodeAt("gone:1", 0, 0)};
  now_.topology.nodes = {NodeAt("idle:1", 9, 10), NodeAt("busy:1", 9, 20), NodeAt("gone:1", 0, 0)};
  now_.topology.nodes[2].link = client::Link::kDown;
  const TopFigures figures = FiguresOf(now_, &before_);
  EXPECT_EQ(figures.nodes.at(0).node.address, "gone:1");
  EXPECT_EQ(figures.nodes.at(1).node.address, "busy:1");
  EXPECT_EQ(figures.nodes.at(2).node.address, "idle:1");
}

TEST_F(TopFiguresTest, UnevennessAndHotExpertsAreOfTheLastSeconds) {
  now_.since_start.layers = {LayerAt(0, 1, 0), LayerAt(1, 1, 0), LayerAt(2, 1, 0)};
  now_.recent.window = absl::Seconds(10);
  now_.recent.layers = {LayerAt(0, 8, 0), LayerAt(1, 400, 0)};
  now_.recent.layers[0].assignments = {8, 0, 0, 0};
  now_.recent.layers[1].assignments = {100, 150, 130, 20};
  now_.recent.layers[1].compared_tokens = 400;
  now_.recent.layers[1].changed_tokens = 6;
  const TopFigures figures = FiguresOf(now_, nullptr);
  EXPECT_EQ(figures.window, absl::Seconds(10));
  EXPECT_EQ(figures.layers.at(0).layer, 0u);
  EXPECT_DOUBLE_EQ(figures.layers.at(0).max_violation, 3);
  EXPECT_DOUBLE_EQ(figures.layers.at(1).max_violation, 0.5);
  EXPECT_EQ(figures.layers.at(1).changed_tokens, 6u);
  EXPECT_EQ(figures.layers.at(1).compared_tokens, 400u);
  EXPECT_DOUBLE_EQ(figures.layers.at(2).max_violation, 0);
  // 50, 30 and 6 beyond an even share: 100, 100 and 2.
  ASSERT_EQ(figures.experts.size(), 3u);
  EXPECT_EQ(figures.experts[0].layer, 1u);
  EXPECT_EQ(figures.experts[0].expert, 1u);
  EXPECT_EQ(figures.experts[0].assignments, 150u);
  EXPECT_DOUBLE_EQ(figures.experts[0].over_even, 1.5);
  EXPECT_EQ(figures.experts[1].expert, 2u);
  EXPECT_DOUBLE_EQ(figures.experts[2].over_even, 4);
}

TEST_F(TopFiguresTest, StagesAreQuantilesOverRequests) {
  EXPECT_TRUE(FiguresOf(now_, nullptr).stages.empty());
  for (int i = 1; i <= 10; ++i) {
    now_.stages.requests.push_back({.queue = absl::Microseconds(i),
                                    .route = absl::Microseconds(2 * i),
                                    .nodes = absl::Microseconds(3 * i),
                                    .combine = absl::Microseconds(4 * i),
                                    .all = absl::Microseconds(100 * i)});
  }
  const TopFigures figures = FiguresOf(now_, nullptr);
  ASSERT_EQ(figures.stages.size(), 5u);
  const double factors[] = {1, 2, 3, 4, 100};
  const char* const names[] = {"queue", "route", "nodes", "combine", "all"};
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_STREQ(figures.stages[i].name, names[i]);
    EXPECT_NEAR(absl::ToDoubleMicroseconds(figures.stages[i].median), 5 * factors[i], 1e-3);
    EXPECT_NEAR(absl::ToDoubleMicroseconds(figures.stages[i].p90), 9 * factors[i], 1e-3);
    EXPECT_NEAR(absl::ToDoubleMicroseconds(figures.stages[i].longest), 10 * factors[i], 1e-3);
  }
}

constexpr int64_t kStart = 1'700'000'000'000'000'000;

// From `start_us` to `end_us` after kStart, in trace {1, 2}.
trace::SpanHead Head(absl::string_view name, uint64_t id, uint64_t parent, int64_t start_us,
                     int64_t end_us) {
  trace::SpanHead head;
  head.name = name;
  head.context = {{1, 2}, id, 1};
  head.parent = parent;
  head.start = absl::FromUnixNanos(kStart + 1000 * start_us);
  head.end = absl::FromUnixNanos(kStart + 1000 * end_us);
  return head;
}

TEST(StageTimesTest, AreReadFromTheSpansOfEachRequestOfATrace) {
  std::string spans;
  trace::SpanWriter(Head("expertmesh.v1.Router/Forward", 1, 77, 0, 1000), &spans);
  trace::SpanWriter(Head("expertmesh.dispatch", 2, 1, 100, 900), &spans)
      .Number("expertmesh.queue_us", 90)
      .Number("expertmesh.route_us", 50)
      .Number("expertmesh.combine_us", 70);
  trace::SpanWriter(Head("expertmesh.v1.Router/Forward", 3, 77, 2000, 2500), &spans);
  trace::SpanWriter(Head("expertmesh.dispatch", 4, 3, 2000, 2400), &spans);
  // Failed before it was sent anywhere.
  trace::SpanWriter(Head("expertmesh.v1.Router/Forward", 5, 77, 3000, 3001), &spans);
  // Its request is not here.
  trace::SpanWriter(Head("expertmesh.dispatch", 6, 99, 4000, 4400), &spans);
  std::string bytes;
  trace::AppendResourceSpans(
      trace::Resource(trace::TextAttributes{{"service.name", "router"}}).bytes, spans, &bytes);
  internal::otlp::TracesData data;
  ASSERT_TRUE(data.ParseFromString(bytes));
  const std::map<int64_t, RequestTimes> requests = StageTimesOf(data);
  ASSERT_EQ(requests.size(), 2u);
  const RequestTimes& first = requests.at(kStart);
  EXPECT_EQ(first.queue, absl::Microseconds(90));
  EXPECT_EQ(first.route, absl::Microseconds(50));
  EXPECT_EQ(first.nodes, absl::Microseconds(750));
  EXPECT_EQ(first.combine, absl::Microseconds(70));
  EXPECT_EQ(first.all, absl::Microseconds(1000));
  EXPECT_EQ(requests.at(kStart + 2'000'000).nodes, absl::Microseconds(400));
}

}  // namespace
}  // namespace expertmesh::command
