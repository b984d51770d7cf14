#include "client/cpp/replay/capacity_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh::replay {
namespace {

using ::testing::HasSubstr;

// Two layers of four experts of 100 bytes, top-1; the first has one expert for half of all tokens.
CapacityQuestion TwoLayers(uint64_t slots) {
  CapacityQuestion question;
  question.layers = {{.layer = 0, .num_experts = 4, .top_k = 1},
                     {.layer = 1, .num_experts = 4, .top_k = 1}};
  question.expert_bytes = {100, 100};
  question.chances = {{.5, .25, .125, .125}, {.25, .25, .25, .25}};
  question.node_memory_bytes = slots * 100;
  question.times = {.assignment_us = 10,
                    .expert_us = 0,
                    .batch_us = 0,
                    .row_us = 0,
                    .token_us = 0,
                    .hop_us = 1000};
  question.batch_tokens = 1000;
  return question;
}

TEST(FewestNodesTest, IsWhatMemoryAsksFor) {
  EXPECT_EQ(FewestNodes(TwoLayers(8)).value(), 1u);
  EXPECT_EQ(FewestNodes(TwoLayers(7)).value(), 2u);
  EXPECT_EQ(FewestNodes(TwoLayers(1)).value(), 8u);
  CapacityQuestion replicated = TwoLayers(8);
  replicated.planner.min_copies = 3;
  EXPECT_EQ(FewestNodes(replicated).value(), 3u) << "three nodes for three copies";
  CapacityQuestion uneven = TwoLayers(1);
  uneven.node_memory_bytes = 199;  // One expert, and nothing for the rest.
  EXPECT_EQ(FewestNodes(uneven).value(), 8u);
  uneven.node_memory_bytes = 99;
  EXPECT_THAT(FewestNodes(uneven).status().message(),
              HasSubstr("up to 100 each, need more than 4096 nodes of 99 bytes"));
}

TEST(PlanCapacityTest, CountsRoomSpeedAndTime) {
  const CapacityAnswer answer = PlanCapacity(TwoLayers(5), 2).value();
  ASSERT_TRUE(answer.fits);
  EXPECT_EQ(answer.spare_copies, 1);
  EXPECT_GE(answer.copies, 8u);
  EXPECT_LE(answer.copies, 10u);
  EXPECT_EQ(answer.node_bytes, 500u);
  EXPECT_NEAR(answer.fullest, 1, 1e-6);
  EXPECT_NEAR(answer.lower_bound, 1, 1e-6);
  // A node has half of the assignments of two layers: 10 us for each token.
  EXPECT_NEAR(answer.tokens_per_second, 100'000, 1);
  // 1 ms on the way and 5 ms for 500 tokens, in two layers; the later of two nodes is a bit later.
  EXPECT_GT(answer.batch_us, 12'000);
  EXPECT_LT(answer.batch_us, 12'500);
}

TEST(PlanCapacityTest, WithoutRoomThereIsAReason) {
  const CapacityAnswer answer = PlanCapacity(TwoLayers(3), 2).value();
  EXPECT_FALSE(answer.fits);
  EXPECT_NE(answer.reason, "");
  EXPECT_EQ(answer.tokens_per_second, 0);
}

TEST(PlanCapacityTest, SpeedsAreTakenInTurns) {
  CapacityQuestion question = TwoLayers(8);
  question.speeds = {3, 1};
  const CapacityAnswer answer = PlanCapacity(question, 2).value();
  EXPECT_NEAR(answer.fullest, 1, 2e-3);
  EXPECT_NEAR(answer.tokens_per_second, 200'000, 500);
}

TEST(PlanCapacityTest, RefusesWhatCannotBe) {
  EXPECT_THAT(PlanCapacity(TwoLayers(8), 0).status().message(), HasSubstr("0 nodes; use 1 to"));
  EXPECT_THAT(PlanCapacity(TwoLayers(8), 5000).status().message(), HasSubstr("5000 nodes"));
  EXPECT_THAT(PlanCapacity(TwoLayers(0), 2).status().message(), HasSubstr("is 0 bytes"));
  CapacityQuestion question = TwoLayers(8);
  question.batch_tokens = 0;
  EXPECT_THAT(PlanCapacity(question, 2).status().message(), HasSubstr("tokens of a batch are 0"));
}

TEST(NodesForSpeedTest, IsTheFirstThatReachesIt) {
  const CapacityQuestion question = TwoLayers(8);
  EXPECT_EQ(NodesForSpeed(question, 1, 50'000).value(), 1u);
  EXPECT_EQ(NodesForSpeed(question, 1, 99'000).value(), 2u);
  EXPECT_EQ(NodesForSpeed(question, 1, 149'000).value(), 3u);
  EXPECT_EQ(NodesForSpeed(question, 1, 345'000).value(), 7u);
  EXPECT_EQ(NodesForSpeed(question, 1, 1e12).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace expertmesh::replay
