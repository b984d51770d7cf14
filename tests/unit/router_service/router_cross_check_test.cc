// Two nodes that compute the same row, beside the requests.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "router_service/mesh/cross_check.h"
#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

const std::vector<uint32_t> kAll = {0, 1, 2, 3, 4, 5};

class CrossCheckTest : public RouterTest {
 protected:
  void Start() {
    router::RouterOptions options;
    options.cross_check_interval = absl::Seconds(10);
    // The clock moves while a batch ends, which would count as the time that it took.
    options.batcher.max_linger_share = 0;
    StartRouter(options);
  }
  double Checks(const std::string& result) {
    double sum = 0.0;
    for (const prometheus::MetricFamily& family : registry_.Collect()) {
      if (family.name != "expertmesh_router_cross_checks_total") {
        continue;
      }
      for (const prometheus::ClientMetric& metric : family.metric) {
        sum += metric.label.at(0).value == result ? metric.counter.value : 0.0;
      }
    }
    return sum;
  }
  // Until so many have ended, well or not.
  void AwaitChecks(double count) {
    // The answers of a check may come behind those of the request that it is beside.
    while (Checks("agree") + Checks("disagree") < count) {
      ASSERT_TRUE(Forward(1, RandomRows(1, 8)).status.ok());
    }
  }
};

TEST_F(CrossCheckTest, HealthyReplicasAgreeAsOftenAsIsAsked) {
  Start();
  FakeNode& a = AddNode("a:1", kAll);
  FakeNode& b = AddNode("b:1", kAll);
  Connect();
  const std::vector<float> rows = RandomRows(1, 4);
  for (int i = 0; i < 5; ++i) {
    ExpectRight(1, rows, Forward(1, rows));
  }
  EXPECT_EQ(a.batches() + b.batches(), 5u);  // None is due.
  clock_.Advance(absl::Seconds(10));
  for (int i = 0; i < 5; ++i) {
    ExpectRight(1, rows, Forward(1, rows));
  }
  AwaitChecks(1.0);
  EXPECT_EQ(Checks("agree"), 1.0);
  EXPECT_EQ(Checks("disagree"), 0.0);
  EXPECT_EQ(router_->fleet().Topology().nodes(0).disagreements(), 0u);
}

TEST_F(CrossCheckTest, WhoComputesSomethingElseIsNamedWithTheOther) {
  Start();
  AddNode("a:1", kAll);
  FakeNode& b = AddNode("b:1", kAll);
  Connect();
  for (const uint32_t expert : kAll) {
    b.Damage(expert, 0.25f);
  }
  ASSERT_TRUE(Forward(1, RandomRows(2, 4)).status.ok());
  clock_.Advance(absl::Seconds(10));
  ASSERT_TRUE(Forward(1, RandomRows(2, 4)).status.ok());
  AwaitChecks(1.0);
  EXPECT_EQ(Checks("disagree"), 1.0);
  const v1::Topology topology = router_->fleet().Topology();
  EXPECT_EQ(topology.nodes(0).disagreements(), 1u);
  EXPECT_EQ(topology.nodes(1).disagreements(), 1u);
}

TEST_F(CrossCheckTest, WithoutReplicasThereIsNothingToCompare) {
  Start();
  FakeNode& a = AddNode("a:1", {0, 1, 2});
  FakeNode& b = AddNode("b:1", {3, 4, 5});
  Connect();
  for (uint32_t i = 0; i < 3; ++i) {
    clock_.Advance(absl::Seconds(10));
    ASSERT_TRUE(Forward(1, RandomRows(i, 1)).status.ok());
  }
  EXPECT_LE(a.batches() + b.batches(), 6u);
  EXPECT_EQ(Checks("agree") + Checks("disagree"), 0.0);
}

// Whatever becomes of a check, requests go on, and so do later checks.
TEST_F(CrossCheckTest, ANodeThatGoesCostsNoRequest) {
  Start();
  AddNode("a:1", kAll);
  FakeNode& b = AddNode("b:1", kAll);
  Connect();
  ASSERT_TRUE(Forward(1, RandomRows(3, 4)).status.ok());
  clock_.Advance(absl::Seconds(10));
  b.FailWith(absl::UnavailableError("not now"));
  const std::vector<float> rows = RandomRows(4, 4);
  ExpectRight(1, rows, Forward(1, rows));
  b.FailWith(absl::OkStatus());
  while (Checks("agree") < 1.0) {
    clock_.Advance(absl::Seconds(10));
    ExpectRight(1, rows, Forward(1, rows));
  }
}

}  // namespace
}  // namespace expertmesh::router
