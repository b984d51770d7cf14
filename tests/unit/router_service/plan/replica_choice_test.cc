#include "router_service/plan/replica_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "tests/unit/router_service/plan/random_batches.h"

namespace expertmesh::plan {
namespace {

uint64_t Idle(mesh::NodeIndex) { return 0; }

// Node of each expert (one slice each), by what was chosen.
std::vector<mesh::NodeIndex> NodeOfExpert(const ReplicaChoice& choice, const RandomBatch& batch,
                                          size_t experts) {
  std::vector<mesh::NodeIndex> node_of(experts, 0);
  for (const uint32_t expert : batch.expert_ids) {
    EXPECT_EQ(choice.Serving(expert).size(), 1u);
    node_of[expert] = choice.nodes()[choice.Serving(expert)[0]].node;
  }
  return node_of;
}

// Distinct (row, node) pairs.
size_t Transfers(const RandomBatch& batch, const std::vector<mesh::NodeIndex>& node_of) {
  size_t transfers = 0;
  for (size_t row = 0; row < batch.rows.size(); ++row) {
    std::set<mesh::NodeIndex> nodes;
    for (uint32_t a = batch.row_begin[row]; a < batch.row_begin[row + 1]; ++a) {
      nodes.insert(node_of[batch.expert_ids[a]]);
    }
    transfers += nodes.size();
  }
  return transfers;
}

struct Least {
  size_t transfers = std::numeric_limits<size_t>::max();
  size_t nodes = std::numeric_limits<size_t>::max();
};

// The least of each over every way to give the experts hit to one of their nodes.
Least Exhaustive(const std::vector<mesh::ExpertReplicas>& replicas, const RandomBatch& batch) {
  const std::set<uint32_t> hit(batch.expert_ids.begin(), batch.expert_ids.end());
  const std::vector<uint32_t> experts(hit.begin(), hit.end());
  std::vector<size_t> pick(experts.size(), 0);
  std::vector<mesh::NodeIndex> node_of(replicas.size(), 0);
  Least least;
  while (true) {
    std::set<mesh::NodeIndex> nodes;
    for (size_t i = 0; i < experts.size(); ++i) {
      node_of[experts[i]] = replicas[experts[i]].slices[0][pick[i]];
      nodes.insert(node_of[experts[i]]);
    }
    least.transfers = std::min(least.transfers, Transfers(batch, node_of));
    least.nodes = std::min(least.nodes, nodes.size());
    size_t at = 0;
    while (at < pick.size() && ++pick[at] == replicas[experts[at]].slices[0].size()) {
      pick[at++] = 0;
    }
    if (at == pick.size()) {
      return least;
    }
  }
}

TEST(ReplicaChoiceTest, JoinsTheNodeWhereFewestRowsAreNew) {
  // Nodes 0 and 1 are needed for experts 0 and 1; expert 2 is hit by the rows of expert 1, though
  // node 0 has less to do.
  RandomBatch batch(0, 1, 0, nullptr);
  batch.rows = {0, 1, 2};
  batch.row_begin = {0, 1, 3, 5};
  batch.expert_ids = {0, 1, 2, 1, 2};
  batch.weights.assign(5, 1.0f);
  const std::vector<mesh::ExpertReplicas> replicas = {{{{0}}}, {{{1}}}, {{{0, 1}}}};
  ReplicaChoice choice;
  choice.Choose(replicas, batch.assignments(), Idle);
  EXPECT_EQ(NodeOfExpert(choice, batch, 3)[2], 1u);
}

TEST(ReplicaChoiceTest, TransfersAreAtOrNearTheLeastThereIs) {
  std::mt19937 random(17);
  size_t cases = 0;
  size_t optimal = 0;
  size_t chosen = 0;
  size_t least = 0;
  double drawn = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const uint32_t nodes = 2 + random() % 4;
    const uint32_t experts = 6 + random() % 4;
    const uint32_t tokens = 1 + random() % 12;
    const RandomBatch batch(tokens, experts, 1 + random() % 4, &random);
    std::vector<mesh::ExpertReplicas> replicas = RandomReplicas(experts, nodes, 2, &random);
    for (size_t expert = 0; expert < experts; expert += 1 + random() % 4) {
      replicas[expert].slices[0].resize(1);
    }
    ReplicaChoice choice;
    choice.Choose(replicas, batch.assignments(), Idle);
    const size_t transfers = Transfers(batch, NodeOfExpert(choice, batch, experts));
    const Least best = Exhaustive(replicas, batch);
    // Set cover's bound, H(n) <= 1 + ln n over the n assignments that are covered; experts with one
    // replica only bring the two closer.
    EXPECT_LE(static_cast<double>(choice.nodes().size()),
              (1.0 + std::log(batch.expert_ids.size())) * static_cast<double>(best.nodes));
    EXPECT_LE(transfers, 2 * best.transfers);  // The worst of these cases; no theorem.
    ++cases;
    optimal += transfers == best.transfers ? 1 : 0;
    chosen += transfers;
    least += best.transfers;
    std::vector<mesh::NodeIndex> node_of(experts);
    for (uint32_t expert = 0; expert < experts; ++expert) {
      const std::vector<mesh::NodeIndex>& candidates = replicas[expert].slices[0];
      node_of[expert] = candidates[random() % candidates.size()];
    }
    drawn += static_cast<double>(Transfers(batch, node_of));
  }
  RecordProperty("cases_at_the_optimum", static_cast<int>(100 * optimal / cases));
  RecordProperty("percent_of_the_optimum", static_cast<int>(100 * chosen / least));
  // Measured: 90 % of cases at the optimum, under 2 % more transfers in all; drawing one node for
  // each expert takes 20 % more.
  EXPECT_GE(optimal, cases * 3 / 4);
  EXPECT_LE(static_cast<double>(chosen), 1.05 * static_cast<double>(least));
  EXPECT_GE(drawn, 1.1 * static_cast<double>(least));
}

}  // namespace
}  // namespace expertmesh::plan
