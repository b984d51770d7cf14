// Nodes whose answers cannot be trusted: NaN and infinities that finite rows did not cause.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "common/checkpoint/expert_digest.h"
#include "router_service/router.h"
#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
const std::vector<uint32_t> kAll = {0, 1, 2, 3, 4, 5};

class RouterTrustTest : public RouterTest {
 protected:
  // Sum over all series of `name` that have this label.
  double Metric(const std::string& name, const std::string& label, const std::string& value) {
    double sum = 0.0;
    for (const prometheus::MetricFamily& family : registry_.Collect()) {
      if (family.name != name) {
        continue;
      }
      for (const prometheus::ClientMetric& metric : family.metric) {
        for (const auto& pair : metric.label) {
          sum += pair.name == label && pair.value == value
                     ? metric.counter.value + metric.gauge.value
                     : 0.0;
        }
      }
    }
    return sum;
  }
  double Verdicts(const std::string& verdict) {
    return Metric("expertmesh_router_nonfinite_answers_total", "verdict", verdict);
  }
  double Faults(const std::string& node) {
    return Metric("expertmesh_router_node_faults_total", "node", node);
  }
  bool AllFinite(const Answer& answer) {
    return answer.status.ok() &&
           !HasNonFinite(Dtype::kF32, answer.output.data(), answer.output.size());
  }
};

class NonFiniteTest : public RouterTrustTest, public testing::WithParamInterface<bool> {
 protected:
  void Start() {
    RouterOptions options;
    options.strict = GetParam();
    StartRouter(options);
  }
};

TEST_P(NonFiniteTest, AHealthyReplicaIsAskedAndTheNodeIsNamed) {
  Start();
  FakeNode& a = AddNode("a:1", kAll);
  AddNode("b:1", kAll);
  Connect();
  for (const float damage : {kNan, kInf, -kInf}) {
    a.Damage(2, damage);
    for (uint32_t i = 0; i < 20; ++i) {
      const std::vector<float> rows = RandomRows(i, 1 + i);
      ExpectRight(1, rows, Forward(1, rows));
    }
  }
  EXPECT_GT(Faults("a:1"), 0.0);
  EXPECT_EQ(Faults("b:1"), 0.0);
  EXPECT_EQ(Verdicts("fault"), Faults("a:1"));
  EXPECT_EQ(Verdicts("confirmed") + Verdicts("unconfirmed"), 0.0);
  const v1::Topology topology = router_->fleet().Topology();
  EXPECT_EQ(static_cast<double>(topology.nodes(0).faulty_answers()), Faults("a:1"));
  EXPECT_EQ(topology.nodes(1).faulty_answers(), 0u);
}

TEST_P(NonFiniteTest, AnyHealthyReplicaWillDo) {
  Start();
  FakeNode& a = AddNode("a:1", kAll);
  FakeNode& b = AddNode("b:1", kAll);
  AddNode("c:1", kAll);
  Connect();
  a.Damage(1, kNan);
  b.Damage(1, kInf);
  for (uint32_t i = 0; i < 20; ++i) {
    const std::vector<float> rows = RandomRows(i, 6);
    ExpectRight(1, rows, Forward(1, rows));
  }
  EXPECT_EQ(Faults("c:1"), 0.0);
}

TEST_P(NonFiniteTest, OfTheModelItselfPassesWhenReplicasAgree) {
  Start();
  FakeNode& a = AddNode("a:1", kAll);
  FakeNode& b = AddNode("b:1", kAll);
  Connect();
  a.Damage(2, kInf);
  b.Damage(2, kInf);
  const Answer answer = Forward(1, RandomRows(3, 20));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_FALSE(AllFinite(answer));
  EXPECT_GT(Verdicts("confirmed"), 0.0);
  EXPECT_EQ(Verdicts("fault") + Verdicts("unconfirmed"), 0.0);
  EXPECT_EQ(Faults("a:1") + Faults("b:1"), 0.0);
}

TEST_P(NonFiniteTest, WithoutAReplicaItPassesAndIsCounted) {
  Start();
  FakeNode& a = AddNode("a:1", kAll);
  Connect();
  a.Damage(2, kNan);
  const Answer answer = Forward(1, RandomRows(3, 20));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_FALSE(AllFinite(answer));
  EXPECT_EQ(Verdicts("unconfirmed"), 1.0);
  EXPECT_EQ(a.batches(), 1u);
}

TEST_P(NonFiniteTest, WhatOnlyThatNodeHoldsIsAskedOfItAgain) {
  Start();
  FakeNode& a = AddNode("a:1", kAll);
  AddNode("b:1", {0, 1, 2});
  Connect();
  a.Damage(1, kNan);
  for (uint32_t i = 0; i < 20; ++i) {
    const std::vector<float> rows = RandomRows(i, 6);
    ExpectRight(1, rows, Forward(1, rows));
  }
  EXPECT_EQ(Verdicts("fault"), Faults("a:1"));
}

TEST_P(NonFiniteTest, OfARowThatCameSoIsNobodysFault) {
  RouterOptions options;
  options.strict = GetParam();
  options.layer.routing = R"({"score": "sigmoid"})";  // Makes finite weights of an infinity.
  StartRouter(options);
  FakeNode& a = AddNode("a:1", kAll);
  FakeNode& b = AddNode("b:1", kAll);
  Connect();
  std::vector<float> rows = RandomRows(5, 6);
  rows[2 * kModel] = kNan;
  rows[4 * kModel + 1] = kInf;
  const Answer answer = Forward(1, rows);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_LE(a.batches() + b.batches(), 2u);
  EXPECT_EQ(Verdicts("fault") + Verdicts("confirmed") + Verdicts("unconfirmed"), 0.0);
}

TEST_P(NonFiniteTest, OfASliceIsAskedAnewOfTheSameSlice) {
  Start();
  FakeNode& a =
      AddNodeWith("a:1", FakeNodeOptions{.experts = kAll, .slice_index = 0, .slice_count = 2});
  AddNodeWith("b:1", FakeNodeOptions{.experts = kAll, .slice_index = 1, .slice_count = 2});
  AddNodeWith("c:1", FakeNodeOptions{.experts = kAll, .slice_index = 0, .slice_count = 2});
  Connect();
  a.Damage(0, kNan);
  for (uint32_t i = 0; i < 20; ++i) {
    const std::vector<float> rows = RandomRows(i, 7);
    ExpectRight(1, rows, Forward(1, rows));
  }
}

INSTANTIATE_TEST_SUITE_P(StrictAndNot, NonFiniteTest, testing::Bool());

// One bit of every twentieth frame or so changes, in either direction.
TEST_F(RouterTrustTest, WithChecksumsAFlippedBitIsFoundAndAskedForAgain) {
  RouterOptions options;
  options.frame_checksums = true;
  options.max_attempts = 10;
  faulty_ =
      std::make_unique<FaultyTransport>(&network_, FaultPlan{.seed = 3, .flip = 0.05}, &clock_);
  StartRouter(options);
  for (const char* address : {"a:1", "b:1"}) {
    AddNodeWith(address, FakeNodeOptions{.experts = kAll, .accepts_damage = true});
  }
  Connect();
  for (uint32_t i = 0; i < 300; ++i) {
    const std::vector<float> rows = RandomRows(i, 1 + i % 30);
    ExpectRight(1, rows, Forward(1, rows));
  }
  EXPECT_GT(faulty_->counts().flipped, 10u);
  EXPECT_GT(Metric("expertmesh_router_node_faults_total", "fault", "checksum"), 5.0);
}

// The only node is asked again.
TEST_F(RouterTrustTest, AWrongChecksumIsNoReasonToGiveUpANode) {
  RouterOptions options;
  options.frame_checksums = true;
  options.max_attempts = 10;
  faulty_ =
      std::make_unique<FaultyTransport>(&network_, FaultPlan{.seed = 4, .flip = 0.05}, &clock_);
  StartRouter(options);
  AddNodeWith("a:1", FakeNodeOptions{.experts = kAll, .accepts_damage = true});
  Connect();
  for (uint32_t i = 0; i < 300; ++i) {
    const std::vector<float> rows = RandomRows(i, 1 + i % 30);
    ExpectRight(1, rows, Forward(1, rows));
  }
  EXPECT_GT(Faults("a:1"), 5.0);
}

// What nodes say of their weights.
class DamagedWeightsTest : public RouterTrustTest {
 protected:
  static uint64_t Right(uint32_t layer, uint32_t expert) {
    return checkpoint::DigestOf(*FakeCheckpoint().Expert(layer, expert));
  }
  // A node with all experts, `damaged` of which are not the model's in any layer.
  FakeNode& AddHonestNode(const std::string& address, const std::vector<uint32_t>& damaged) {
    FakeNode& node = AddNodeWith(
        address, FakeNodeOptions{.experts = kAll, .digest = [damaged](uint32_t layer, uint32_t e) {
                                   const bool wrong =
                                       std::count(damaged.begin(), damaged.end(), e) > 0;
                                   return Right(layer, e) + (wrong ? 1 : 0);
                                 }});
    for (const uint32_t expert : damaged) {
      node.Damage(expert, 1e9f);
    }
    return node;
  }
  void AwaitDamaged(const std::string& address, const std::vector<uint32_t>& experts) {
    AwaitTopology([&](const v1::Topology& topology) {
      for (const v1::TopologyNode& node : topology.nodes()) {
        if (node.address() != address || node.damaged_size() != 2) {
          continue;
        }
        const auto& told = node.damaged(1);
        return node.damaged(0).layer() == 1 && told.layer() == 3 &&
               std::vector<uint32_t>(told.experts().begin(), told.experts().end()) == experts &&
               told.reason().find("this router's checkpoint") != std::string::npos &&
               told.reason().find("not those of this") != std::string::npos;
      }
      return false;
    });
  }
};

TEST_F(DamagedWeightsTest, AreNamedAndNeverUsedBesideTheRightOnes) {
  RouterOptions options;
  options.verify_bytes_per_second = 0;
  StartRouter(options);
  AddHonestNode("a:1", {2, 4});
  AddHonestNode("b:1", {});
  Connect();
  AwaitDamaged("a:1", {2, 4});
  for (uint32_t i = 0; i < 30; ++i) {
    const std::vector<float> rows = RandomRows(i, 1 + i);
    ExpectRight(1, rows, Forward(1, rows));
  }
  EXPECT_EQ(Metric("expertmesh_router_damaged_experts", "node", "a:1"), 4.0);
  EXPECT_EQ(Metric("expertmesh_router_damaged_experts", "node", "b:1"), 0.0);
}

TEST_F(DamagedWeightsTest, OfTheOnlyHolderAreMissing) {
  RouterOptions options;
  options.verify_bytes_per_second = ~uint64_t{0};  // At once, though the clock stands still.
  StartRouter(options);
  AddHonestNode("a:1", {3});
  router_->fleet().SetAddresses(addresses_);
  AwaitDamaged("a:1", {3});
  const v1::Topology topology = router_->fleet().Topology();
  EXPECT_FALSE(topology.ready());
  EXPECT_EQ(topology.nodes(0).link(), v1::NODE_LINK_UP);
  ASSERT_EQ(topology.missing_size(), 2);
  EXPECT_THAT(topology.missing(0).experts(), testing::ElementsAre(3));
  // And are used again as soon as they are right.
  nodes_["a:1"]->SetDigest(Right);
  AwaitTopology([](const v1::Topology& now) { return now.ready(); });
  EXPECT_EQ(Metric("expertmesh_router_damaged_experts", "node", "a:1"), 0.0);
}

}  // namespace
}  // namespace expertmesh::router
