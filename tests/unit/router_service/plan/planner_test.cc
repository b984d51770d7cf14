#include "router_service/plan/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "tests/support/compare_rows.h"

namespace expertmesh::plan {
namespace {

using testing::ElementsAre;

// A batch of `rows` tokens with the given experts each; weights encode (row, slot).
struct TestBatch {
  explicit TestBatch(const std::vector<std::vector<uint32_t>>& experts_of_row) {
    row_begin.push_back(0);
    for (uint32_t row = 0; row < experts_of_row.size(); ++row) {
      rows.push_back(row);
      for (uint32_t slot = 0; slot < experts_of_row[row].size(); ++slot) {
        expert_ids.push_back(experts_of_row[row][slot]);
        weights.push_back(static_cast<float>(row * 100 + slot));
      }
      row_begin.push_back(static_cast<uint32_t>(expert_ids.size()));
    }
  }
  Assignments assignments() const { return {rows, row_begin, expert_ids, weights}; }

  std::vector<uint32_t> rows, row_begin, expert_ids;
  std::vector<float> weights;
};

std::vector<mesh::ExpertReplicas> Whole(
    const std::vector<std::vector<mesh::NodeIndex>>& nodes_of_expert) {
  std::vector<mesh::ExpertReplicas> replicas;
  for (const std::vector<mesh::NodeIndex>& nodes : nodes_of_expert) {
    replicas.push_back(nodes.empty() ? mesh::ExpertReplicas{} : mesh::ExpertReplicas{{nodes}});
  }
  return replicas;
}

BatchPlan Plan(const std::vector<mesh::ExpertReplicas>& replicas, const TestBatch& batch,
               std::map<mesh::NodeIndex, uint64_t> rows_in_flight = {}) {
  NodePlanPool pool;
  Planner planner;
  return planner.Plan(
      replicas, batch.assignments(), [&](mesh::NodeIndex node) { return rows_in_flight[node]; },
      &pool);
}

std::vector<mesh::NodeIndex> NodesOf(const BatchPlan& plan) {
  std::vector<mesh::NodeIndex> nodes;
  for (const NodePlan& node : plan.nodes) {
    nodes.push_back(node.node);
  }
  return nodes;
}

TEST(PlannerTest, ANodeGetsEachOfItsRowsOnceWithAssignmentsInSlotOrder) {
  const BatchPlan plan = Plan(Whole({{0}, {1}, {0}, {1}}), TestBatch({{2, 1}, {3, 1}, {0, 2}}));
  ASSERT_THAT(NodesOf(plan), ElementsAre(0, 1));
  EXPECT_THAT(plan.nodes[0].rows, ElementsAre(0, 2));
  EXPECT_THAT(plan.nodes[0].row_begin, ElementsAre(0, 1, 3));
  EXPECT_THAT(plan.nodes[0].expert_ids, ElementsAre(2, 0, 2));
  EXPECT_THAT(plan.nodes[0].expert_weights, ElementsAre(0.0f, 200.0f, 201.0f));
  EXPECT_THAT(plan.nodes[1].rows, ElementsAre(0, 1));
  EXPECT_THAT(plan.nodes[1].row_begin, ElementsAre(0, 1, 3));
  EXPECT_THAT(plan.nodes[1].expert_ids, ElementsAre(1, 3, 1));
}

TEST(PlannerTest, ReplicasJoinNodesThatAreNeededAnyway) {
  // Expert 0 lives on node 2 only; 1 and 2 could go elsewhere, but node 2 has them too.
  const BatchPlan plan = Plan(Whole({{2}, {0, 2}, {1, 2}}), TestBatch({{0, 1}, {1, 2}}));
  EXPECT_THAT(NodesOf(plan), ElementsAre(2));
}

TEST(PlannerTest, PicksTheNodeThatCoversMost) {
  const BatchPlan plan = Plan(Whole({{0, 3}, {1, 3}, {2, 3}}), TestBatch({{0, 1}, {1, 2}, {2, 0}}));
  EXPECT_THAT(NodesOf(plan), ElementsAre(3));
}

TEST(PlannerTest, TiesGoToTheNodeWithLeastWorkThenToPlacementOrder) {
  const TestBatch batch({{0}, {0}});
  EXPECT_THAT(NodesOf(Plan(Whole({{0, 1}}), batch)), ElementsAre(0));
  EXPECT_THAT(NodesOf(Plan(Whole({{0, 1}}), batch, {{0, 5}})), ElementsAre(1));
}

TEST(PlannerTest, MissingExpertsAreReportedPerRow) {
  const BatchPlan plan = Plan(Whole({{0}, {}}), TestBatch({{0, 1}, {0}, {1}}));
  ASSERT_EQ(plan.unplaced.size(), 2u);
  EXPECT_EQ(std::make_pair(plan.unplaced[0].row, plan.unplaced[0].expert), std::make_pair(0u, 1u));
  EXPECT_EQ(std::make_pair(plan.unplaced[1].row, plan.unplaced[1].expert), std::make_pair(2u, 1u));
}

TEST(PlannerTest, EverySliceOfAnExpertIsSentItsRows) {
  const std::vector<mesh::ExpertReplicas> replicas = {mesh::ExpertReplicas{{{0}, {1, 2}}}};
  const BatchPlan plan = Plan(replicas, TestBatch({{0}, {0}}));
  ASSERT_THAT(NodesOf(plan), ElementsAre(0, 1));
  EXPECT_THAT(plan.nodes[0].rows, ElementsAre(0, 1));
  EXPECT_THAT(plan.nodes[1].rows, ElementsAre(0, 1));
}

// Two experts per token, each on both of two nodes: all tokens fit on one node, and two nodes drawn
// at random differ half of the time.
TEST(PlannerTest, TransfersAreToldNextToThoseOfAUniformChoice) {
  const std::vector<mesh::ExpertReplicas> replicas = Whole({{0, 1}, {0, 1}});
  for (const uint32_t tokens : {1, 7, 64}) {
    const TestBatch batch(std::vector<std::vector<uint32_t>>(tokens, {0, 1}));
    NodePlanPool pool;
    Planner planner;
    double transfers = 0;
    double uniform = 0;
    constexpr uint32_t kBatches = 64'000;
    for (uint32_t i = 0; i < kBatches / tokens; ++i) {
      const BatchPlan& plan = planner.Plan(
          replicas, batch.assignments(), [](mesh::NodeIndex) { return uint64_t{0}; }, &pool);
      transfers += static_cast<double>(plan.transfers);
      uniform += plan.uniform_transfers;
    }
    EXPECT_EQ(transfers, kBatches / tokens * tokens);
    // 4000 rows are sampled; the mean of so many coins is within 0.05 of its own (six deviations).
    EXPECT_NEAR(uniform / transfers, 1.5, 0.05);
  }
}

TEST(PlannerTest, WithoutReplicasAUniformChoiceIsThePlan) {
  const BatchPlan plan = Plan(Whole({{0}, {1}, {1}}), TestBatch({{0, 1}, {1, 2}, {0, 2}}));
  EXPECT_EQ(plan.transfers, 5u);
  EXPECT_EQ(plan.uniform_transfers, 5.0);
}

TEST(PlannerTest, PlansOfOneBatchLeaveNothingInThoseOfTheNext) {
  const std::vector<mesh::ExpertReplicas> replicas = Whole({{0, 1}, {1, 2}, {2}, {}});
  const TestBatch large({{0, 1, 2}, {2, 3, 0}, {1, 0}, {2}});
  const TestBatch small({{1}, {0}});
  NodePlanPool pool;
  Planner planner;
  const auto work = [](mesh::NodeIndex) { return uint64_t{0}; };
  for (int round = 0; round < 3; ++round) {
    for (const TestBatch* batch : {&large, &small}) {
      BatchPlan& plan = planner.Plan(replicas, batch->assignments(), work, &pool);
      const BatchPlan fresh = Plan(replicas, *batch);
      ASSERT_EQ(NodesOf(plan), NodesOf(fresh));
      EXPECT_EQ(plan.unplaced.size(), fresh.unplaced.size());
      EXPECT_EQ(plan.transfers, fresh.transfers);
      for (size_t i = 0; i < plan.nodes.size(); ++i) {
        EXPECT_TRUE(SameRows(plan.nodes[i].rows, fresh.nodes[i].rows, 1));
        EXPECT_TRUE(SameRows(plan.nodes[i].row_begin, fresh.nodes[i].row_begin, 1));
        EXPECT_TRUE(SameRows(plan.nodes[i].expert_ids, fresh.nodes[i].expert_ids, 1));
        EXPECT_TRUE(SameRows(plan.nodes[i].expert_weights, fresh.nodes[i].expert_weights, 1));
      }
      if (round > 0) {  // As a batch does that has ended.
        std::vector<NodePlan> ended = std::move(plan.nodes);
        pool.Recycle(&ended);
      }
    }
  }
}

TEST(PlannerTest, HitsOfOneBatchCountForNothingInTheNext) {
  // Expert 2 goes with whichever of the others has more hits.
  const std::vector<mesh::ExpertReplicas> replicas = Whole({{0, 2}, {1, 3}, {0, 1}});
  const TestBatch only_expert_0({{0}, {0}, {0}, {0}});
  const TestBatch more_of_expert_1({{1, 2}, {1}, {0}});
  NodePlanPool pool;
  Planner planner;
  const auto work = [](mesh::NodeIndex) { return uint64_t{0}; };
  planner.Plan(replicas, only_expert_0.assignments(), work, &pool);
  const BatchPlan& plan = planner.Plan(replicas, more_of_expert_1.assignments(), work, &pool);
  ASSERT_THAT(NodesOf(plan), ElementsAre(0, 1));
  EXPECT_THAT(plan.nodes[1].expert_ids, ElementsAre(1, 2, 1));
}

TEST(PlannerTest, EveryAssignmentIsPlacedExactlyOnceOnANodeThatHoldsIt) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 200; ++trial) {
    const uint32_t experts = 4 + random() % 60;
    const uint32_t nodes = 1 + random() % 9;
    std::vector<std::vector<mesh::NodeIndex>> holders(experts);
    for (std::vector<mesh::NodeIndex>& holder : holders) {
      std::set<mesh::NodeIndex> chosen;
      for (uint32_t i = 0; i <= random() % 3; ++i) {
        chosen.insert(random() % nodes);
      }
      holder.assign(chosen.begin(), chosen.end());
    }
    const uint32_t k = 1 + random() % 4;
    std::vector<std::vector<uint32_t>> of_row(1 + random() % 40);
    for (std::vector<uint32_t>& row : of_row) {
      std::vector<uint32_t> all(experts);
      std::iota(all.begin(), all.end(), 0);
      std::shuffle(all.begin(), all.end(), random);
      row.assign(all.begin(), all.begin() + k);
    }
    const TestBatch batch(of_row);
    const BatchPlan plan = Plan(Whole(holders), batch);
    EXPECT_TRUE(plan.unplaced.empty());
    std::set<std::tuple<uint32_t, uint32_t, float>> placed;
    uint64_t transfers = 0;
    for (const NodePlan& node : plan.nodes) {
      ASSERT_EQ(node.row_begin.size(), node.rows.size() + 1);
      EXPECT_TRUE(std::is_sorted(node.rows.begin(), node.rows.end()));
      transfers += node.rows.size();
      for (size_t i = 0; i < node.rows.size(); ++i) {
        EXPECT_LT(node.row_begin[i], node.row_begin[i + 1]);
        for (uint32_t a = node.row_begin[i]; a < node.row_begin[i + 1]; ++a) {
          const uint32_t expert = node.expert_ids[a];
          EXPECT_THAT(holders[expert], testing::Contains(node.node));
          EXPECT_TRUE(placed.emplace(node.rows[i], expert, node.expert_weights[a]).second);
        }
      }
    }
    EXPECT_EQ(placed.size(), batch.expert_ids.size());
    EXPECT_EQ(plan.transfers, transfers);
  }
}

}  // namespace
}  // namespace expertmesh::plan
