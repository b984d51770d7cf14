#include "router_service/plan/shared_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <utility>
#include <vector>

namespace expertmesh::plan {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint32_t kShared = 8;

// A node that is sent these rows, with one assignment each, to expert `row % kShared`.
NodePlan Sent(mesh::NodeIndex node, const std::vector<uint32_t>& rows) {
  NodePlan plan;
  plan.node = node;
  plan.rows = rows;
  plan.row_begin = {0};
  for (const uint32_t row : rows) {
    plan.expert_ids.push_back(row % kShared);
    plan.expert_weights.push_back(0.5f);
    plan.row_begin.push_back(static_cast<uint32_t>(plan.expert_ids.size()));
  }
  return plan;
}

struct Outcome {
  BatchPlan plan;
  std::vector<uint32_t> here;

  // Rows that `node` has the shared experts of, by their assignments.
  std::vector<uint32_t> Given(mesh::NodeIndex node) const {
    std::vector<uint32_t> rows;
    for (const NodePlan& one : plan.nodes) {
      for (size_t i = 0; one.node == node && i < one.rows.size(); ++i) {
        const auto count = std::count(one.expert_ids.begin() + one.row_begin[i],
                                      one.expert_ids.begin() + one.row_begin[i + 1], kShared);
        rows.insert(rows.end(), static_cast<size_t>(count), one.rows[i]);
      }
    }
    return rows;
  }
};

class SharedPlacementTest : public testing::Test {
 protected:
  Outcome Place(const std::vector<NodePlan>& sent, const std::vector<mesh::NodeIndex>& holders,
                size_t rows, uint64_t shared_parameters = 10,
                std::optional<uint64_t> work_here = std::nullopt) {
    weights_.clear();
    for (size_t row = 0; row < rows; ++row) {
      weights_.push_back(static_cast<float>(row) + 0.25f);
    }
    Outcome outcome;
    outcome.plan.nodes = sent;
    placement_.Place(
        holders, {kShared, weights_, 10, shared_parameters, work_here},
        [this](mesh::NodeIndex node) { return in_flight_[node]; }, &pool_, &outcome.plan);
    outcome.here.assign(placement_.rows_here().begin(), placement_.rows_here().end());
    return outcome;
  }

  // What was there is as it was, in order of nodes and rows, and what was added is last in its row.
  void ExpectOthersUntouched(const std::vector<NodePlan>& sent, const BatchPlan& plan) {
    std::map<std::pair<mesh::NodeIndex, uint32_t>, std::vector<uint32_t>> before;
    std::map<std::pair<mesh::NodeIndex, uint32_t>, std::vector<uint32_t>> after;
    for (const NodePlan& one : sent) {
      for (size_t i = 0; i < one.rows.size(); ++i) {
        before[{one.node, one.rows[i]}] = {one.expert_ids.begin() + one.row_begin[i],
                                           one.expert_ids.begin() + one.row_begin[i + 1]};
      }
    }
    for (size_t at = 0; at < plan.nodes.size(); ++at) {
      const NodePlan& one = plan.nodes[at];
      EXPECT_TRUE(at == 0 || plan.nodes[at - 1].node < one.node);
      EXPECT_TRUE(std::is_sorted(one.rows.begin(), one.rows.end(), std::less_equal<>()));
      ASSERT_EQ(one.row_begin.size(), one.rows.size() + 1);
      ASSERT_EQ(one.row_begin.back(), one.expert_ids.size());
      ASSERT_EQ(one.expert_weights.size(), one.expert_ids.size());
      for (size_t i = 0; i < one.rows.size(); ++i) {
        std::vector<uint32_t> experts(one.expert_ids.begin() + one.row_begin[i],
                                      one.expert_ids.begin() + one.row_begin[i + 1]);
        ASSERT_FALSE(experts.empty());
        const bool shared = experts.back() == kShared;
        EXPECT_EQ(one.expert_weights[one.row_begin[i + 1] - 1],
                  shared ? weights_[one.rows[i]] : 0.5f);
        experts.resize(experts.size() - (shared ? 1 : 0));
        if (!experts.empty()) {
          after[{one.node, one.rows[i]}] = experts;
        }
      }
    }
    EXPECT_EQ(after, before);
  }

  std::map<mesh::NodeIndex, uint64_t> in_flight_;
  std::vector<float> weights_;
  NodePlanPool pool_;
  SharedPlacement placement_;
};

TEST_F(SharedPlacementTest, WithoutAHolderAllRowsAreTheRouters) {
  const Outcome outcome = Place({Sent(0, {0, 1})}, {}, 3);
  EXPECT_THAT(outcome.here, ElementsAre(0, 1, 2));
  EXPECT_THAT(outcome.plan.nodes[0].expert_ids, ElementsAre(0, 1));
  EXPECT_EQ(outcome.plan.transfers, 0u);
}

TEST_F(SharedPlacementTest, TheOnlyHolderHasAllRows) {
  const std::vector<NodePlan> sent = {Sent(1, {0, 2}), Sent(4, {1})};
  const Outcome outcome = Place(sent, {4}, 3);
  EXPECT_THAT(outcome.Given(4), ElementsAre(0, 1, 2));
  EXPECT_THAT(outcome.here, IsEmpty());
  EXPECT_EQ(outcome.plan.transfers, 2u);
  ExpectOthersUntouched(sent, outcome.plan);
}

TEST_F(SharedPlacementTest, RowsGoWhereTheBatchHasLeastWork) {
  // Node 0 has six assignments, node 1 two, and node 2 none: 12 rows fill them to a level.
  const std::vector<NodePlan> sent = {Sent(0, {0, 1, 2, 3, 4, 5}), Sent(1, {6, 7})};
  const Outcome outcome = Place(sent, {0, 1, 2}, 12);
  EXPECT_NEAR(static_cast<double>(outcome.Given(0).size()), 1, 1);
  EXPECT_NEAR(static_cast<double>(outcome.Given(1).size()), 5, 1);
  EXPECT_NEAR(static_cast<double>(outcome.Given(2).size()), 6, 1);
  ExpectOthersUntouched(sent, outcome.plan);
  // What is in flight to a node counts like what the batch gives it.
  in_flight_ = {{1, 100}, {2, 100}};
  EXPECT_EQ(Place(sent, {0, 1, 2}, 12).Given(0).size(), 12u);
}

TEST_F(SharedPlacementTest, WorkIsCountedInParameters) {
  // A shared row weighs as much as four assignments: 8 rows are level with node 1's 32.
  std::vector<uint32_t> rows(32);
  for (uint32_t row = 0; row < rows.size(); ++row) {
    rows[row] = row;
  }
  const Outcome outcome = Place({Sent(1, rows)}, {0, 1}, 32, 40);
  EXPECT_NEAR(static_cast<double>(outcome.Given(0).size()), 20, 2.5);
  EXPECT_NEAR(static_cast<double>(outcome.Given(1).size()), 12, 2.5);
}

TEST_F(SharedPlacementTest, ARowStaysWhereItGoesAnyway) {
  const std::vector<NodePlan> sent = {Sent(0, {0, 3, 5}), Sent(1, {1, 4, 7}), Sent(2, {2, 6})};
  const Outcome outcome = Place(sent, {0, 1, 2}, 8);
  EXPECT_THAT(outcome.Given(0), ElementsAre(0, 3, 5));
  EXPECT_THAT(outcome.Given(1), ElementsAre(1, 4, 7));
  EXPECT_THAT(outcome.Given(2), ElementsAre(2, 6));
  EXPECT_EQ(outcome.plan.transfers, 0u);
  // One token, alone: not to an idle node, unless that one has much less to do.
  EXPECT_THAT(Place({Sent(1, {0})}, {0, 1}, 1).Given(1), ElementsAre(0));
  in_flight_[1] = 9;
  EXPECT_THAT(Place({Sent(1, {0})}, {0, 1}, 1).Given(0), ElementsAre(0));
}

TEST_F(SharedPlacementTest, RestGoesInRunsOfRows) {
  const Outcome outcome = Place({}, {3, 5}, 10);
  EXPECT_THAT(outcome.Given(3), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(outcome.Given(5), ElementsAre(5, 6, 7, 8, 9));
}

TEST_F(SharedPlacementTest, TheRouterTakesItsPartWhereItIsToldTo) {
  const std::vector<NodePlan> sent = {Sent(0, {0, 1, 2, 3})};
  const Outcome both = Place(sent, {0}, 8, 10, 0);
  EXPECT_NEAR(static_cast<double>(both.here.size()), 6, 1);
  EXPECT_EQ(both.here.size() + both.Given(0).size(), 8u);
  ExpectOthersUntouched(sent, both.plan);
  EXPECT_THAT(Place(sent, {0}, 8, 10, 1'000'000).here, IsEmpty());
  EXPECT_THAT(Place(sent, {0}, 8).here, IsEmpty());
}

// Work of each holder when rows are dealt out one by one to the one with least: no way has a lower
// fullest one.
uint64_t LeastFullest(std::vector<uint64_t> work, size_t rows, uint64_t cost) {
  uint64_t fullest = 0;
  for (size_t row = 0; row < rows; ++row) {
    uint64_t& least = *std::min_element(work.begin(), work.end());
    least += cost;
    fullest = std::max(fullest, least);
  }
  return fullest;
}

TEST_F(SharedPlacementTest, RandomBatchesAreEvenAndCompleteAndDoNotTravelInVain) {
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    SCOPED_TRACE(round);
    const uint32_t nodes = 1 + random() % 6;
    const uint32_t rows = 1 + random() % 70;
    const uint64_t cost = 1 + random() % 60;
    std::vector<NodePlan> sent;
    std::vector<mesh::NodeIndex> holders;
    std::map<mesh::NodeIndex, uint64_t> before;
    std::map<mesh::NodeIndex, std::vector<uint32_t>> sent_to;
    for (mesh::NodeIndex node = 0; node < nodes; ++node) {
      in_flight_[node] = random() % 3 == 0 ? random() % 50 : 0;
      const uint32_t often = random() % 5;
      for (uint32_t row = 0; row < rows; ++row) {
        if (random() % 4 < often) {
          sent_to[node].push_back(row);
        }
      }
      if (!sent_to[node].empty()) {
        sent.push_back(Sent(node, sent_to[node]));
      }
      if (random() % 3 > 0 || (node + 1 == nodes && holders.empty())) {
        holders.push_back(node);
        before[node] = 10 * (sent_to[node].size() + in_flight_[node]);
      }
    }
    const Outcome outcome = Place(sent, holders, rows, cost);
    ExpectOthersUntouched(sent, outcome.plan);
    std::vector<int> times(rows);
    std::vector<uint64_t> work;
    std::map<mesh::NodeIndex, uint64_t> after;
    for (const mesh::NodeIndex node : holders) {
      work.push_back(before[node]);
      for (const uint32_t row : outcome.Given(node)) {
        ++times[row];
      }
      after[node] = before[node] + cost * outcome.Given(node).size();
    }
    EXPECT_THAT(times, Each(1));
    const uint64_t best = LeastFullest(work, rows, cost);
    for (const mesh::NodeIndex node : holders) {
      if (after[node] > before[node]) {
        EXPECT_LE(after[node], best + std::max(cost, best / 8));
      }
      // Who gets a row that it had not had is not fuller than who had it, but for tolerance.
      for (const uint32_t row : outcome.Given(node)) {
        const auto has = [&](mesh::NodeIndex other) {
          return std::binary_search(sent_to[other].begin(), sent_to[other].end(), row);
        };
        for (const mesh::NodeIndex other : holders) {
          if (!has(node) && has(other)) {
            EXPECT_GE(after[other] + 2 * cost, best) << "row " << row;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace expertmesh::plan
