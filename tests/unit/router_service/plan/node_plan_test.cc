#include "router_service/plan/node_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <tuple>
#include <vector>

namespace expertmesh::plan {
namespace {

using testing::ElementsAre;

// (row, expert, weight), in order.
using Flat = std::vector<std::tuple<uint32_t, uint32_t, float>>;

Flat Flatten(const NodePlan& plan) {
  Flat flat;
  EXPECT_EQ(plan.row_begin.size(), plan.rows.size() + 1);
  EXPECT_EQ(plan.row_begin.front(), 0u);
  EXPECT_EQ(plan.row_begin.back(), plan.expert_ids.size());
  EXPECT_EQ(plan.expert_weights.size(), plan.expert_ids.size());
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    EXPECT_LT(plan.row_begin[i], plan.row_begin[i + 1]);
    for (uint32_t a = plan.row_begin[i]; a < plan.row_begin[i + 1]; ++a) {
      flat.emplace_back(plan.rows[i], plan.expert_ids[a], plan.expert_weights[a]);
    }
  }
  return flat;
}

std::vector<NodePlan> Cut(const NodePlan& plan, uint32_t limit) {
  NodePlanPool pool;
  std::vector<NodePlan> used = {plan};  // What the pool gives has had other contents.
  pool.Recycle(&used);
  std::vector<NodePlan> pieces;
  CutToAssignments(plan, limit, &pool, &pieces);
  return pieces;
}

TEST(CutPlanTest, ARowWhoseAssignmentsAreCutIsInBothPieces) {
  const NodePlan plan = {3, {2, 5, 9}, {0, 1, 5, 6}, {7, 0, 1, 2, 3, 4}, {1, 2, 3, 4, 5, 6}};
  const std::vector<NodePlan> pieces = Cut(plan, 3);
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_THAT(pieces[0].rows, ElementsAre(2, 5));
  EXPECT_THAT(pieces[0].row_begin, ElementsAre(0, 1, 3));
  EXPECT_THAT(pieces[0].expert_ids, ElementsAre(7, 0, 1));
  EXPECT_THAT(pieces[1].rows, ElementsAre(5, 9));
  EXPECT_THAT(pieces[1].row_begin, ElementsAre(0, 2, 3));
  EXPECT_THAT(pieces[1].expert_ids, ElementsAre(2, 3, 4));
  EXPECT_THAT(pieces[1].expert_weights, ElementsAre(4, 5, 6));
}

TEST(CutPlanTest, PiecesHaveEveryAssignmentOnceInOrderAndNoneTooMany) {
  std::mt19937 random(11);
  for (int trial = 0; trial < 200; ++trial) {
    NodePlan plan;
    plan.node = 4;
    plan.row_begin.push_back(0);
    for (uint32_t row = random() % 3; plan.rows.size() <= random() % 20; row += 1 + random() % 3) {
      plan.rows.push_back(row);
      for (uint32_t i = 0; i <= random() % 5; ++i) {
        plan.expert_ids.push_back(random() % 50);
        plan.expert_weights.push_back(static_cast<float>(plan.expert_ids.size()));
      }
      plan.row_begin.push_back(static_cast<uint32_t>(plan.expert_ids.size()));
    }
    const uint32_t limit = random() % 9;  // 0: none.
    Flat joined;
    for (const NodePlan& piece : Cut(plan, limit)) {
      EXPECT_EQ(piece.node, 4u);
      EXPECT_TRUE(limit == 0 || piece.expert_ids.size() <= limit);
      const Flat flat = Flatten(piece);
      EXPECT_FALSE(flat.empty());
      joined.insert(joined.end(), flat.begin(), flat.end());
    }
    EXPECT_EQ(joined, Flatten(plan));
  }
}

TEST(CutToRowsTest, PiecesHaveTheRowsInOrderAndNotMoreThanTheLimit) {
  const NodePlan plan = {
      7, {0, 1, 2, 3, 9}, {0, 1, 3, 4, 6, 7}, {0, 0, 1, 1, 1, 0, 0}, {1, 2, 3, 4, 5, 6, 7}};
  NodePlanPool pool;
  std::vector<NodePlan> pieces;
  CutToRows(plan, 2, &pool, &pieces);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_THAT(pieces[0].rows, testing::ElementsAre(0, 1));
  EXPECT_THAT(pieces[1].rows, testing::ElementsAre(2, 3));
  EXPECT_THAT(pieces[1].row_begin, testing::ElementsAre(0, 1, 3));
  EXPECT_THAT(pieces[1].expert_ids, testing::ElementsAre(1, 1, 0));
  EXPECT_THAT(pieces[1].expert_weights, testing::ElementsAre(4, 5, 6));
  EXPECT_THAT(pieces[2].rows, testing::ElementsAre(9));
  EXPECT_THAT(pieces[2].row_begin, testing::ElementsAre(0, 1));
  for (const NodePlan& piece : pieces) {
    EXPECT_EQ(piece.node, 7u);
  }
}

TEST(CutToRowsTest, WithoutALimitOrBelowItNothingIsCut) {
  const NodePlan plan = {1, {0, 1}, {0, 1, 2}, {0, 1}, {1, 2}};
  for (const uint32_t limit : {0, 2, 3}) {
    NodePlanPool pool;
    std::vector<NodePlan> pieces;
    CutToRows(plan, limit, &pool, &pieces);
    ASSERT_EQ(pieces.size(), 1u) << limit;
    EXPECT_THAT(pieces[0].rows, testing::ElementsAre(0, 1));
  }
}

}  // namespace
}  // namespace expertmesh::plan
