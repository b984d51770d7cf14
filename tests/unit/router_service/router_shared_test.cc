// Shared experts on nodes: each token's once, wherever they are computed, and never an error
// because no node has them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "common/checkpoint/expert_digest.h"
#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

using batch::SharedExpertsAt;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// One past the six routed ones.
constexpr uint32_t kShared = 6;
const std::vector<uint32_t> kAll = {0, 1, 2, 3, 4, 5};
const std::vector<uint32_t> kAllAndShared = {0, 1, 2, 3, 4, 5, kShared};

class RouterSharedTest : public RouterTest {
 protected:
  void Start(SharedExpertsAt where, RouterOptions options = {},
             FakeCheckpointOptions checkpoint = {}) {
    options.shared_experts = where;
    options.batcher.max_linger_share = 0;
    checkpoint.shared_expert = true;
    StartRouter(options, checkpoint);
  }
  FakeNode& Add(const std::string& address, const std::vector<uint32_t>& experts) {
    return AddNodeWith(address, FakeNodeOptions{.experts = experts, .shared_expert = kShared});
  }
  void ExpectServed(size_t tokens, uint32_t seed = 1) {
    const std::vector<float> rows = RandomRows(seed, tokens);
    ExpectRight(1, rows, Forward(1, rows), /*shared=*/true);
  }
  // Held until its answer waits, `lost` goes away.
  Answer ForwardAndLose(const std::vector<float>& rows, const std::string& lost) {
    FakeNode& node = *nodes_.at(lost);
    node.Hold();
    v1::ForwardRequest request;
    request.set_layer(1);
    request.set_return_routing(true);
    Answer answer;
    absl::Notification done;
    Send(Encode(request, rows), &answer, &done);
    node.AwaitHeld(1);
    network_.Unregister(lost);
    done.WaitForNotification();
    return answer;
  }
  // Rows that the router's own backend has computed.
  size_t RowsHere() const {
    const std::vector<size_t> calls = backend_->calls();
    return std::accumulate(calls.begin(), calls.end(), size_t{0});
  }
  double Metric(const std::string& name, const std::string& value) {
    double sum = 0;
    for (const prometheus::MetricFamily& family : registry_.Collect()) {
      for (const prometheus::ClientMetric& metric : family.metric) {
        if (family.name == name && !metric.label.empty() && metric.label[0].value == value) {
          sum += metric.counter.value;
        }
      }
    }
    return sum;
  }
};

TEST_F(RouterSharedTest, NodesComputeThem) {
  Start(SharedExpertsAt::kNodes);
  FakeNode& a = Add("a:1", {0, 1, 2});
  FakeNode& b = Add("b:1", {3, 4, 5, kShared});
  Connect();
  for (const size_t tokens : {1, 9, 64}) {
    ExpectServed(tokens, static_cast<uint32_t>(tokens));
  }
  EXPECT_EQ(RowsHere(), 0u);
  EXPECT_EQ(a.assignments() + b.assignments(), 3 * 74u);  // Two routed and a shared one each.
  EXPECT_EQ(b.rows(), 74u);
  EXPECT_EQ(Metric("expertmesh_router_shared_expert_rows_total", "nodes"), 74);
  EXPECT_EQ(Metric("expertmesh_router_shared_expert_rows_total", "router"), 0);
}

TEST_F(RouterSharedTest, TheRouterDoesUnlessItIsToldOtherwise) {
  StartRouter({}, /*shared_expert=*/true);
  FakeNode& a = Add("a:1", kAllAndShared);
  Connect();
  ExpectServed(20);
  EXPECT_EQ(RowsHere(), 20u);
  EXPECT_EQ(a.assignments(), 40u);
}

TEST_F(RouterSharedTest, TheRouterDoesWhereNoNodeHoldsThem) {
  for (const SharedExpertsAt where : {SharedExpertsAt::kNodes, SharedExpertsAt::kBoth}) {
    Start(where);
    AddNodeWith("a:1", FakeNodeOptions{.layers = {1}, .experts = kAll});
    AddNodeWith("b:1",
                FakeNodeOptions{.layers = {3}, .experts = kAllAndShared, .shared_expert = kShared});
    Connect();
    ExpectServed(20);
    EXPECT_EQ(RowsHere(), 20u);
    const std::vector<float> rows = RandomRows(2, 20);
    ExpectRight(3, rows, Forward(3, rows), /*shared=*/true);
    if (where == SharedExpertsAt::kNodes) {
      EXPECT_EQ(RowsHere(), 20u);
    }
    router_.reset();
    network_.Unregister("a:1");
    network_.Unregister("b:1");
    nodes_.clear();
    addresses_.clear();
  }
}

TEST_F(RouterSharedTest, TheyAreBallast) {
  Start(SharedExpertsAt::kNodes);
  // All that is routed goes to the first; a third of all work is that of shared experts.
  FakeNode& a = Add("a:1", kAllAndShared);
  FakeNode& b = Add("b:1", {kShared});
  Connect();
  ExpectServed(600);
  EXPECT_GE(b.assignments(), 520u);
  EXPECT_EQ(a.assignments() + b.assignments(), 1800u);
}

TEST_F(RouterSharedTest, TheRouterTakesItsPart) {
  Start(SharedExpertsAt::kBoth);
  FakeNode& a = Add("a:1", kAll);
  FakeNode& b = Add("b:1", {kShared});
  Connect();
  for (const size_t tokens : {1, 2, 64, 300}) {
    ExpectServed(tokens, static_cast<uint32_t>(tokens));
  }
  EXPECT_EQ(RowsHere() + b.rows(), 367u);
  EXPECT_GT(RowsHere(), 150u);
  EXPECT_GT(b.rows(), 150u);
  EXPECT_EQ(a.rows(), 367u);
}

TEST_F(RouterSharedTest, TheGateIsAppliedOnNodesToo) {
  FakeCheckpointOptions checkpoint;
  checkpoint.shared_gate = true;
  const std::vector<float> rows = RandomRows(11, 30);
  std::vector<std::vector<float>> outputs;
  for (const SharedExpertsAt where :
       {SharedExpertsAt::kRouter, SharedExpertsAt::kNodes, SharedExpertsAt::kBoth}) {
    RouterOptions options;
    options.strict = true;  // The sums have one order.
    Start(where, options, checkpoint);
    Add("a:1", kAllAndShared);
    Connect();
    const Answer answer = Forward(1, rows);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    outputs.push_back(answer.output);
    router_.reset();
    network_.Unregister("a:1");
    nodes_.clear();
    addresses_.clear();
  }
  EXPECT_TRUE(SameBits(outputs[1], outputs[0], kModel));
  EXPECT_TRUE(SameBits(outputs[2], outputs[0], kModel));
}

// A node would apply the gate's weight to the input, as it does with those of routed experts.
TEST_F(RouterSharedTest, AGateBesideWeightsOfTheInputIsTheRouters) {
  for (const bool gate : {false, true}) {
    FakeCheckpointOptions checkpoint;
    checkpoint.shared_gate = gate;
    checkpoint.apply = ApplyWeight::kInput;
    Start(SharedExpertsAt::kNodes, {}, checkpoint);
    Add("a:1", kAllAndShared);
    Connect();
    ASSERT_TRUE(Forward(1, RandomRows(1, 9)).status.ok());
    EXPECT_EQ(RowsHere(), gate ? 9u : 0u);
    router_.reset();
    network_.Unregister("a:1");
    nodes_.clear();
    addresses_.clear();
  }
}

TEST_F(RouterSharedTest, RowsWithoutAnyRoutedExpertHaveThemAsWell) {
  RouterOptions options;
  options.layer.routing = R"({"top_k": 1, "capacity_tokens": 1})";
  Start(SharedExpertsAt::kNodes, options);
  Add("a:1", {0, 1, 2});
  Add("b:1", {3, 4, 5, kShared});
  Connect();
  const std::vector<float> rows = RandomRows(9, 20);
  const Answer answer = Forward(1, rows);
  ExpectRight(1, rows, answer, /*shared=*/true);
  EXPECT_GE(answer.response.dropped_size(), 14);
  EXPECT_EQ(RowsHere(), 0u);
}

TEST_F(RouterSharedTest, TheyAreNeitherRoutingNorLoad) {
  Start(SharedExpertsAt::kNodes);
  Add("a:1", kAllAndShared);
  Connect();
  const std::vector<float> rows = RandomRows(9, 20);
  const Answer answer = Forward(1, rows);
  EXPECT_EQ(answer.response.routing().expert_ids_size(), 40);
  for (const uint32_t expert : answer.response.routing().expert_ids()) {
    EXPECT_LT(expert, kShared);
  }
  const v1::GetLoadResponse load = router_->controller().GetLoad({});
  EXPECT_EQ(load.layers(0).assignments_size(), 6);
  EXPECT_EQ(std::accumulate(load.layers(0).assignments().begin(),
                            load.layers(0).assignments().end(), uint64_t{0}),
            40u);
}

TEST_F(RouterSharedTest, AnotherHolderComputesWhatOneLost) {
  Start(SharedExpertsAt::kNodes);
  Add("a:1", kAll);
  FakeNode& b = Add("b:1", {kShared});
  FakeNode& c = Add("c:1", {kShared});
  Connect();
  const std::vector<float> rows = RandomRows(3, 40);
  ExpectRight(1, rows, ForwardAndLose(rows, "b:1"), /*shared=*/true);
  EXPECT_EQ(b.rows(), 20u);
  EXPECT_EQ(c.rows(), 40u);
  EXPECT_EQ(RowsHere(), 0u);
}

TEST_F(RouterSharedTest, TheRouterComputesWhatTheOnlyHolderLost) {
  for (const bool strict : {false, true}) {
    RouterOptions options;
    options.strict = strict;
    Start(SharedExpertsAt::kNodes, options);
    Add("a:1", kAll);
    Add("b:1", kAllAndShared);  // With routed ones, of which there are replicas.
    Connect();
    const std::vector<float> rows = RandomRows(3, 40);
    ExpectRight(1, rows, ForwardAndLose(rows, "b:1"), /*shared=*/true);
    EXPECT_EQ(RowsHere(), 40u);
    ExpectServed(10);  // And goes on so.
    EXPECT_EQ(RowsHere(), 50u);
    router_.reset();
    network_.Unregister("a:1");
    nodes_.clear();
    addresses_.clear();
  }
}

TEST_F(RouterSharedTest, SomeRowsHereSomeLost) {
  Start(SharedExpertsAt::kBoth);
  Add("a:1", kAll);
  Add("b:1", {kShared});
  Connect();
  const std::vector<float> rows = RandomRows(3, 50);
  ExpectRight(1, rows, ForwardAndLose(rows, "b:1"), /*shared=*/true);
  EXPECT_EQ(RowsHere(), 50u);
}

// Whatever the node answers, and however few attempts there are.
TEST_F(RouterSharedTest, AHolderThatFailsCostsNoRequest) {
  for (const uint32_t attempts : {1, 3}) {
    RouterOptions options;
    options.max_attempts = attempts;
    Start(SharedExpertsAt::kNodes, options);
    Add("a:1", kAll);
    FakeNode& b = Add("b:1", {kShared});
    Connect();
    for (const absl::StatusCode code :
         {absl::StatusCode::kInternal, absl::StatusCode::kResourceExhausted,
          absl::StatusCode::kFailedPrecondition, absl::StatusCode::kUnavailable}) {
      b.FailOnce(absl::Status(code, "not today"));
      ExpectServed(7);
    }
    EXPECT_EQ(RowsHere(), 28u);
    EXPECT_EQ(b.rows(), 28u);
    ExpectServed(7);
    EXPECT_EQ(RowsHere(), 28u);
    router_.reset();
    network_.Unregister("a:1");
    network_.Unregister("b:1");
    nodes_.clear();
    addresses_.clear();
  }
}

TEST_F(RouterSharedTest, ARoutedExpertThatIsLostIsStillAnError) {
  Start(SharedExpertsAt::kNodes);
  Add("a:1", kAllAndShared);
  Connect();
  const Answer answer = ForwardAndLose(RandomRows(3, 4), "a:1");
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(answer.status.message()), Not(HasSubstr("6")));
}

TEST_F(RouterSharedTest, NanOfDamagedSharedExpertsIsNotUsed) {
  Start(SharedExpertsAt::kNodes);
  Add("a:1", kAll);
  FakeNode& b = Add("b:1", {kShared});
  Connect();
  b.Damage(kShared, std::numeric_limits<float>::quiet_NaN());
  ExpectServed(5);
  EXPECT_EQ(RowsHere(), 5u);
  EXPECT_EQ(Metric("expertmesh_router_nonfinite_answers_total", "fault"), 1);
}

TEST_F(RouterSharedTest, ACopyOfOtherWeightsIsNotUsed) {
  RouterOptions at_once;
  at_once.verify_bytes_per_second = std::numeric_limits<uint64_t>::max();
  Start(SharedExpertsAt::kNodes, at_once);
  FakeCheckpointOptions options;
  options.shared_expert = true;
  const FakeCheckpoint checkpoint(options);
  const auto digest = [&checkpoint](uint32_t layer, uint32_t expert) {
    return checkpoint::DigestOf(*checkpoint.Hostable(layer, expert)) + (expert == kShared ? 1 : 0);
  };
  AddNodeWith(
      "a:1", FakeNodeOptions{.experts = kAllAndShared, .shared_expert = kShared, .digest = digest});
  Connect();
  AwaitTopology([](const v1::Topology& topology) { return topology.nodes(0).damaged_size() == 2; });
  EXPECT_THAT(router_->fleet().Topology().nodes(0).damaged(0).experts(), ElementsAre(kShared));
  EXPECT_TRUE(router_->ready());
  ExpectServed(10);
  EXPECT_EQ(RowsHere(), 10u);
}

// Links that round both ways, and another computes each time.
TEST_F(RouterSharedTest, StrictBitsDoNotDependOnWhoComputes) {
  struct Case {
    SharedExpertsAt where;
    std::vector<std::vector<uint32_t>> nodes;
    bool lose_last;
  };
  const std::vector<float> rows = RandomRows(5, 33);
  for (const char* type : {"f32", "bf16", "f16", "int8"}) {
    std::vector<float> first;
    for (const Case& c :
         {Case{SharedExpertsAt::kNodes, {kAllAndShared}, false},
          Case{SharedExpertsAt::kNodes, {kAll}, false},
          Case{SharedExpertsAt::kNodes, {{0, 1, 2, kShared}, {3, 4, 5, kShared}}, false},
          Case{SharedExpertsAt::kNodes, {kAll, {kShared}}, true},
          Case{SharedExpertsAt::kBoth, {kAllAndShared, {kShared}}, false},
          Case{SharedExpertsAt::kBoth, {kAll, {kShared}}, true}}) {
      RouterOptions options;
      options.strict = true;
      options.wire_hidden_states = type;
      options.wire_partials = type;
      Start(c.where, options);
      for (const std::vector<uint32_t>& experts : c.nodes) {
        Add("node" + std::to_string(nodes_.size()) + ":1", experts);
      }
      Connect();
      const std::string last = addresses_.back();
      const Answer answer = c.lose_last ? ForwardAndLose(rows, last) : Forward(1, rows);
      ASSERT_TRUE(answer.status.ok()) << answer.status;
      first = first.empty() ? answer.output : first;
      EXPECT_TRUE(SameBits(answer.output, first, kModel)) << type << ", " << c.nodes.size();
      // Alone, too.
      const std::vector<float> row(rows.begin() + 7 * kModel, rows.begin() + 8 * kModel);
      EXPECT_TRUE(SameBits(Forward(1, row).output,
                           absl::MakeConstSpan(first).subspan(7 * kModel, kModel), kModel));
      router_.reset();
      for (const std::string& address : addresses_) {
        network_.Unregister(address);
      }
      nodes_.clear();
      addresses_.clear();
    }
  }
}

}  // namespace
}  // namespace expertmesh::router
