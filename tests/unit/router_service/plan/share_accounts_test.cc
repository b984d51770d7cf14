#include "router_service/plan/share_accounts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "router_service/plan/planner.h"
#include "tests/unit/router_service/plan/random_batches.h"

namespace expertmesh::plan {
namespace {

using ::testing::ElementsAre;

uint64_t Idle(mesh::NodeIndex) { return 0; }

// How many assignments of each expert each node was given; each assignment once, or it fails.
using Served = std::map<uint32_t, std::map<mesh::NodeIndex, uint64_t>>;

void Count(const BatchPlan& plan, const RandomBatch& batch, Served* served) {
  std::set<std::pair<uint32_t, float>> placed;
  for (const NodePlan& node : plan.nodes) {
    for (size_t i = 0; i < node.rows.size(); ++i) {
      for (uint32_t a = node.row_begin[i]; a < node.row_begin[i + 1]; ++a) {
        EXPECT_TRUE(placed.emplace(node.rows[i], node.expert_weights[a]).second);
        ++(*served)[node.expert_ids[a]][node.node];
      }
    }
  }
  EXPECT_EQ(placed.size(), batch.expert_ids.size());
}

// A batch of top-1 tokens, all of them of one expert.
RandomBatch OneExpert(uint32_t expert, uint32_t tokens) {
  std::mt19937 random;
  RandomBatch batch(tokens, 1, 1, &random);
  std::fill(batch.expert_ids.begin(), batch.expert_ids.end(), expert);
  return batch;
}

TEST(ShareAccountsTest, WhatOneServesBeyondItsShareOthersAreOwed) {
  const std::vector<mesh::ExpertReplicas> replicas = {{{{0}}},
                                                      {{{0, 1, 2}}, {{0.5f, 0.25f, 0.25f}}}};
  ShareAccounts accounts;
  absl::Span<float> owed = accounts.Owe(7, replicas, 1, 8);
  EXPECT_THAT(owed, ElementsAre(4, 2, 2));
  owed[0] -= 8;
  EXPECT_THAT(accounts.Owe(7, replicas, 1, 8), ElementsAre(0, 4, 4));
  // Another layer has accounts of its own.
  EXPECT_THAT(accounts.Owe(6, replicas, 1, 8), ElementsAre(4, 2, 2));
}

TEST(ShareAccountsTest, AReplicaThatHasNoShareAnyMoreIsOwedNothing) {
  std::vector<mesh::ExpertReplicas> replicas = {{{{0, 1}}, {{0.5f, 0.5f}}}};
  ShareAccounts accounts;
  accounts.Owe(0, replicas, 0, 10)[0] -= 10;
  replicas[0].shares = {{1, 0}};
  EXPECT_THAT(accounts.Owe(0, replicas, 0, 10), ElementsAre(10, 0));
}

TEST(ShareAccountsTest, SharesMatterWhereThereIsAChoice) {
  EXPECT_TRUE(HasShares({{{0, 1}}, {{0.9f, 0.1f}}}));
  EXPECT_FALSE(HasShares({{{0, 1}}}));
  EXPECT_FALSE(HasShares({{{0}}, {{1}}}));
  EXPECT_FALSE(HasShares({{{0, 1}}, {{0, 0}}}));
  EXPECT_FALSE(HasShares({{{0, 1}, {0, 1}}, {{0.5f, 0.5f}, {0.5f, 0.5f}}}));  // In slices.
}

TEST(ReplicaSharesTest, ManyRowsAreDividedIntoSuccessiveOnes) {
  std::vector<mesh::ExpertReplicas> replicas(4);
  replicas[3] = {{{0, 2, 5}}, {{0.5f, 0.125f, 0.375f}}};
  NodePlanPool pool;
  Planner planner;
  const RandomBatch batch = OneExpert(3, 160);
  const BatchPlan& plan = planner.Plan(replicas, batch.assignments(), Idle, &pool);
  ASSERT_EQ(plan.nodes.size(), 3u);
  uint32_t next = 0;
  const std::vector<size_t> expected = {80, 20, 60};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(plan.nodes[i].rows.size(), expected[i]);
    for (const uint32_t row : plan.nodes[i].rows) {
      EXPECT_EQ(row, next++);
    }
  }
  EXPECT_EQ(plan.transfers, 160u);
}

// Its share of one batch is too small for a part, that of some is not.
TEST(ReplicaSharesTest, SmallSharesAreServedInTurns) {
  const std::vector<mesh::ExpertReplicas> replicas = {{{{0, 1}}, {{0.95f, 0.05f}}}};
  NodePlanPool pool;
  Planner planner;
  Served served;
  std::vector<size_t> nodes;
  for (int i = 0; i < 40; ++i) {
    const RandomBatch batch = OneExpert(0, 100);
    const BatchPlan& plan = planner.Plan(replicas, batch.assignments(), Idle, &pool);
    nodes.push_back(plan.nodes.size());
    Count(plan, batch, &served);
  }
  EXPECT_NEAR(static_cast<double>(served[0][1]), 200, 16);
  // Parts of 20 in each fourth batch.
  EXPECT_EQ(std::count(nodes.begin(), nodes.end(), 2u), 10);
}

// Few rows go to one replica; over many batches, and however large they are, counts approach the
// shares. Against 64 + 32 rows for each other replica: more is never owed.
TEST(ReplicaSharesTest, CountsApproachTheShares) {
  constexpr uint32_t kExperts = 24;
  std::mt19937 random(3);
  for (const uint32_t tokens : {1u, 7u, 60u, 700u}) {
    std::vector<mesh::ExpertReplicas> replicas = RandomReplicas(kExperts, 6, 3, &random);
    for (mesh::ExpertReplicas& expert : replicas) {
      const float first = static_cast<float>(random() % 100) / 100;
      const float second = (1 - first) * static_cast<float>(random() % 100) / 100;
      expert.shares = {{first, second, 1 - first - second}};
    }
    NodePlanPool pool;
    Planner planner;
    Served served;
    for (int i = 0; i < 1500; ++i) {
      const RandomBatch batch(1 + (random() % tokens), kExperts, 4, &random);
      Count(planner.Plan(replicas, batch.assignments(), Idle, &pool), batch, &served);
    }
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      uint64_t all = 0;
      for (const auto& [node, count] : served[expert]) {
        all += count;
      }
      for (size_t i = 0; i < 3; ++i) {
        const mesh::NodeIndex node = replicas[expert].slices[0][i];
        const double due = static_cast<double>(replicas[expert].shares[0][i]) * all;
        EXPECT_NEAR(static_cast<double>(served[expert][node]), due, 2 * 96 + 1)
            << "expert " << expert << " of " << tokens << " tokens";
      }
    }
  }
}

TEST(ReplicaSharesTest, AReplicaWithoutAShareServesNothing) {
  std::mt19937 random(9);
  std::vector<mesh::ExpertReplicas> replicas = RandomReplicas(16, 4, 2, &random);
  for (mesh::ExpertReplicas& expert : replicas) {
    expert.shares = {{0, 1}};
  }
  NodePlanPool pool;
  Planner planner;
  Served served;
  for (int i = 0; i < 50; ++i) {
    const RandomBatch batch(1 + (random() % 300), 16, 4, &random);
    Count(planner.Plan(replicas, batch.assignments(), Idle, &pool), batch, &served);
  }
  for (uint32_t expert = 0; expert < 16; ++expert) {
    EXPECT_EQ(served[expert].count(replicas[expert].slices[0][0]), 0u);
  }
}

// Rows 0 to 79 of a divided expert are on node 0, the others on node 1. Experts that one of these
// rows hits, too, go there.
TEST(ReplicaSharesTest, ExpertsJoinTheNodeThatHasTheirRowOfADividedOne) {
  for (const uint32_t row : {0u, 63u, 64u, 79u, 80u, 127u, 128u, 159u}) {
    RandomBatch batch = OneExpert(0, 160);
    batch.expert_ids.insert(batch.expert_ids.begin() + row + 1, 1);
    batch.weights.push_back(160);
    for (uint32_t later = row + 1; later <= 160; ++later) {
      ++batch.row_begin[later];
    }
    const std::vector<mesh::ExpertReplicas> replicas(2, {{{0, 1}}, {{0.5f, 0.5f}}});
    NodePlanPool pool;
    Planner planner;
    Served served;
    const BatchPlan& plan = planner.Plan(replicas, batch.assignments(), Idle, &pool);
    Count(plan, batch, &served);
    EXPECT_EQ(served[1].begin()->first, row < 80 ? 0u : 1u) << row;
    EXPECT_EQ(plan.transfers, 160u);
  }
}

// Two experts with the same replicas: with nothing owed yet, the second joins the first.
TEST(ReplicaSharesTest, ARowKeepsToFewNodesAsFarAsSharesLetIt) {
  const std::vector<mesh::ExpertReplicas> replicas = {{{{0, 1}}, {{0.5f, 0.5f}}},
                                                      {{{0, 1}}, {{0.5f, 0.5f}}}};
  NodePlanPool pool;
  Planner planner;
  std::mt19937 random(1);
  uint64_t transfers = 0;
  for (int i = 0; i < 200; ++i) {
    const RandomBatch batch(1, 2, 2, &random);
    transfers += planner.Plan(replicas, batch.assignments(), Idle, &pool).transfers;
  }
  EXPECT_LE(transfers, 210u);  // Apart from each other it would be 300 on average.
}

TEST(ReplicaSharesTest, WithoutSharesNothingIsDivided) {
  const std::vector<mesh::ExpertReplicas> replicas = {{{{0, 1}}}};
  NodePlanPool pool;
  Planner planner;
  const RandomBatch batch = OneExpert(0, 500);
  EXPECT_EQ(planner.Plan(replicas, batch.assignments(), Idle, &pool).nodes.size(), 1u);
}

}  // namespace
}  // namespace expertmesh::plan
