// What the router tells of a batch's way, of its nodes and of its load.
#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/telemetry/exposition.h"
#include "router_service/serve/load_metrics.h"
#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::vector<uint32_t> kAll = {0, 1, 2, 3, 4, 5};

class RouterMetricsTest : public RouterTest {
 protected:
  std::string Text() const {
    return telemetry::Expose(registry_.Collect(), telemetry::Exposition::kText);
  }
  // `series` without expertmesh_router_; "absent" when it is not there.
  std::string Value(const std::string& series) const {
    const std::string text = absl::StrCat("\n", Text());
    const std::string line = absl::StrCat("\nexpertmesh_router_", series, " ");
    const size_t at = text.find(line);
    if (at == std::string::npos) {
      return "absent";
    }
    const size_t begin = at + line.size();
    return text.substr(begin, text.find('\n', begin) - begin);
  }
  // One request of four rows, whose first node is lost on the way.
  void LoseFirst(FakeNode& first) {
    first.Hold();
    const std::vector<float> rows = RandomRows(7, 4);
    v1::ForwardRequest request;
    request.set_layer(1);
    request.set_return_routing(true);
    Answer answer;
    absl::Notification done;
    Send(Encode(request, rows), &answer, &done);
    first.AwaitHeld(1);
    clock_.Advance(absl::Milliseconds(20));
    network_.Unregister("a:1");
    done.WaitForNotification();
    ExpectRight(1, rows, answer);
  }
};

TEST_F(RouterMetricsTest, EachStageOfABatchIsTimed) {
  StartRouter();
  AddNode("a:1", {0, 1, 2});
  AddNode("b:1", {3, 4, 5});
  Connect();
  for (const char* stage : {"route", "plan", "experts", "combine"}) {
    const std::string count = absl::StrCat("stage_duration_seconds_count{stage=\"", stage, "\"}");
    EXPECT_EQ(Value(count), "0");
  }
  ASSERT_TRUE(Forward(1, RandomRows(1, 30)).status.ok());
  // The last of it is told after the answer.
  router_->Drain(absl::InfiniteDuration());
  for (const char* stage : {"route", "plan", "experts", "combine"}) {
    const std::string count = absl::StrCat("stage_duration_seconds_count{stage=\"", stage, "\"}");
    EXPECT_EQ(Value(count), "1") << stage;
  }
  EXPECT_EQ(Value("batch_requests_sum"), "1");
  for (const char* node : {"a:1", "b:1"}) {
    EXPECT_EQ(Value(absl::StrCat("node_call_duration_seconds_count{node=\"", node, "\"}")), "1");
    for (const char* way : {"sent", "received"}) {
      const std::string bytes =
          Value(absl::StrCat("node_bytes_total{direction=\"", way, "\",node=\"", node, "\"}"));
      EXPECT_GT(std::stod(bytes), 0) << node << " " << way;
    }
  }
}

TEST_F(RouterMetricsTest, AFailOverSaysWhyAndHowLongItTook) {
  StartRouter();
  FakeNode& first = AddNode("a:1", kAll);
  AddNode("b:1", kAll);
  Connect();
  EXPECT_EQ(Value("retries_total{reason=\"lost\"}"), "0");
  LoseFirst(first);
  EXPECT_EQ(Value("retries_total{reason=\"lost\"}"), "1");
  EXPECT_EQ(Value("retries_won_total{kind=\"retry\"}"), "1");
  EXPECT_EQ(Value("retries_won_total{kind=\"second_opinion\"}"), "0");
  EXPECT_EQ(Value("failover_stall_seconds_count"), "1");
  EXPECT_EQ(Value("failover_stall_seconds_sum"), "0.02");
}

TEST_F(RouterMetricsTest, ANodeThatIsOverdueIsNotOneThatIsLost) {
  RouterOptions options;
  options.max_request_time = absl::InfiniteDuration();
  StartRouter(options);
  FakeNode& first = AddNode("a:1", kAll);
  FakeNode& second = AddNode("b:1", kAll);
  Connect();
  ASSERT_TRUE(Forward(1, RandomRows(1, 3)).status.ok());
  first.Hold();
  const std::vector<float> rows = RandomRows(7, 4);
  v1::ForwardRequest request;
  request.set_layer(1);
  Answer answer;
  absl::Notification done;
  Send(Encode(request, rows), &answer, &done);
  first.AwaitHeld(1);
  // In small steps, and none once the other node is asked: that one shall not be overdue as well.
  for (const uint64_t before = second.batches(); second.batches() == before;) {
    clock_.Advance(absl::Milliseconds(40));
    absl::SleepFor(absl::Milliseconds(2));
  }
  done.WaitForNotification();
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(Value("retries_total{reason=\"overdue\"}"), "1");
  EXPECT_EQ(Value("retries_total{reason=\"lost\"}"), "0");
}

TEST_F(RouterMetricsTest, TheSeriesOfANodeGoWithIt) {
  StartRouter();
  AddNode("a:1", kAll);
  AddNode("b:1", kAll);
  Connect();
  EXPECT_THAT(Text(), HasSubstr("{node=\"a:1\",le="));
  router_->fleet().SetAddresses({"b:1"});
  clock_.AwaitWaiters(1);
  clock_.Advance(absl::Seconds(1));
  AwaitTopology([](const v1::Topology& topology) { return topology.nodes_size() == 1; });
  // Its link goes with the last view of the mesh that knows it.
  while (Text().find("{node=\"a:1\",le=") != std::string::npos) {
    ASSERT_TRUE(Forward(1, RandomRows(1, 3)).status.ok());
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_THAT(Text(), HasSubstr("{node=\"b:1\",le="));
}

TEST_F(RouterMetricsTest, LoadIsExactByLayerAndOfTheBusiestExperts) {
  balance_control::LoadCounts counts;
  counts[3] = {
      .tokens = 10, .compared = 8, .changed = 2, .node_us = 2'500'000, .assignments = {4, 0, 16}};
  const serve::LoadMetrics load([&counts] { return counts; }, {telemetry::ExpertMetrics::kTop, 1},
                                &clock_);
  const std::string text = telemetry::Expose(load.Collect(), telemetry::Exposition::kText);
  EXPECT_THAT(text, HasSubstr("_layer_tokens_total{layer=\"3\"} 10\n"));
  EXPECT_THAT(text, HasSubstr("_layer_assignments_total{layer=\"3\"} 20\n"));
  EXPECT_THAT(text, HasSubstr("_layer_compared_tokens_total{layer=\"3\"} 8\n"));
  EXPECT_THAT(text, HasSubstr("_layer_changed_tokens_total{layer=\"3\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("_layer_node_seconds_total{layer=\"3\"} 2.5\n"));
  EXPECT_THAT(text, HasSubstr("_expert_tokens_total{expert=\"2\",layer=\"3\"} 16\n"));
  EXPECT_THAT(text, Not(HasSubstr("expert=\"0\"")));
}

}  // namespace
}  // namespace expertmesh::router
