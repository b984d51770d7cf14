// Planning allocates nothing once it has seen batches of the size.
#include <gtest/gtest.h>

#include <deque>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "router_service/plan/planner.h"
#include "router_service/plan/shared_placement.h"
#include "tests/support/allocation_counter.h"
#include "tests/unit/router_service/plan/random_batches.h"

namespace expertmesh::plan {
namespace {

struct Case {
  uint32_t tokens;
  uint32_t nodes;
  uint32_t replicas;
  uint32_t max_batch_rows;
  bool shares = false;
};

class PlannerAllocationTest : public testing::TestWithParam<Case> {};

TEST_P(PlannerAllocationTest, NoneAfterWarmUp) {
  const Case& c = GetParam();
  std::mt19937 random(11);
  std::vector<mesh::ExpertReplicas> replicas = RandomReplicas(128, c.nodes, c.replicas, &random);
  if (c.shares) {
    DrawShares(&replicas, &random);
  }
  std::vector<RandomBatch> batches;
  for (int i = 0; i < 20; ++i) {
    batches.emplace_back(c.tokens, 128, 8, &random);
  }
  NodePlanPool pool;
  Planner planner;
  std::vector<NodePlan> in_flight;
  std::vector<NodePlan> pieces;
  const auto work = [](mesh::NodeIndex node) { return uint64_t{node % 3}; };
  // A plan leaves as one that is sent does, and comes back before the next.
  const auto plan = [&](const RandomBatch& batch) {
    in_flight.swap(planner.Plan(replicas, batch.assignments(), work, &pool).nodes);
    for (NodePlan& whole : in_flight) {
      CutToRows(std::move(whole), c.max_batch_rows, &pool, &pieces);
    }
    pool.Recycle(&in_flight);
    pool.Recycle(&pieces);
  };
  // Memory goes round among the nodes' plans until each has had the largest.
  for (int round = 0; round < 50; ++round) {
    for (const RandomBatch& batch : batches) {
      plan(batch);
    }
  }
  const uint64_t before = allocation_count;
  for (const RandomBatch& batch : batches) {
    plan(batch);
  }
  EXPECT_EQ(allocation_count - before, 0u);
}

TEST_P(PlannerAllocationTest, NoneForSharedExperts) {
  const Case& c = GetParam();
  std::mt19937 random(12);
  const std::vector<mesh::ExpertReplicas> replicas =
      RandomReplicas(128, c.nodes, c.replicas, &random);
  std::vector<RandomBatch> batches;
  for (int i = 0; i < 20; ++i) {
    batches.emplace_back(c.tokens, 128, 8, &random);
  }
  std::vector<mesh::NodeIndex> holders(c.nodes);
  std::iota(holders.begin(), holders.end(), 0);
  const std::vector<float> weights(c.tokens, 1.0f);
  const SharedDemand demand{128, weights, 100, 200, 1000};
  NodePlanPool pool;
  Planner planner;
  SharedPlacement shared;
  std::vector<NodePlan> in_flight;
  const auto work = [](mesh::NodeIndex node) { return uint64_t{node % 3}; };
  const auto plan = [&](const RandomBatch& batch) {
    BatchPlan& made = planner.Plan(replicas, batch.assignments(), work, &pool);
    shared.Place(holders, demand, work, &pool, &made);
    in_flight.swap(made.nodes);
    pool.Recycle(&in_flight);
  };
  for (int round = 0; round < 50; ++round) {
    for (const RandomBatch& batch : batches) {
      plan(batch);
    }
  }
  const uint64_t before = allocation_count;
  for (const RandomBatch& batch : batches) {
    plan(batch);
  }
  EXPECT_EQ(allocation_count - before, 0u);
}

TEST(PlannerAllocationTest, TheCounterCounts) {
  NodePlanPool pool;
  std::vector<NodePlan> plans;
  pool.Take(0, &plans);  // A sanitizer that takes memory for the pool's mutex has done so.
  const uint64_t before = allocation_count;
  pool.Take(1, &plans);
  EXPECT_EQ(allocation_count - before, 1u);
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const uint32_t tokens : {1, 64, 512}) {
    for (const uint32_t nodes : {1, 4, 32}) {
      for (const uint32_t replicas : {1, 2}) {
        cases.push_back({tokens, nodes, replicas, 0});
      }
    }
  }
  cases.push_back({512, 4, 2, 100});  // Plans that are cut.
  for (const uint32_t tokens : {1, 64, 4096}) {
    cases.push_back({tokens, 4, 2, 0, true});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, PlannerAllocationTest, testing::ValuesIn(AllCases()),
                         [](const testing::TestParamInfo<Case>& info) {
                           return "T" + std::to_string(info.param.tokens) + "N" +
                                  std::to_string(info.param.nodes) + "R" +
                                  std::to_string(info.param.replicas) + "L" +
                                  std::to_string(info.param.max_batch_rows) +
                                  (info.param.shares ? "Shares" : "");
                         });

}  // namespace
}  // namespace expertmesh::plan
