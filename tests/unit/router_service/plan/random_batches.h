// Batches and placements drawn at random, for tests and benchmarks of planning.
#ifndef EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_PLAN_RANDOM_BATCHES_H_
#define EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_PLAN_RANDOM_BATCHES_H_

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "router_service/plan/replica_choice.h"

namespace expertmesh::plan {

// Weights say which assignment it is.
struct RandomBatch {
  RandomBatch(uint32_t tokens, uint32_t experts, uint32_t top_k, std::mt19937* random)
      : rows(tokens), row_begin(1, 0) {
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<uint32_t> all(experts);
    std::iota(all.begin(), all.end(), 0);
    for (uint32_t row = 0; row < tokens; ++row) {
      for (uint32_t slot = 0; slot < top_k; ++slot) {
        std::swap(all[slot], all[slot + (*random)() % (experts - slot)]);
        expert_ids.push_back(all[slot]);
        weights.push_back(static_cast<float>(weights.size()));
      }
      row_begin.push_back(static_cast<uint32_t>(expert_ids.size()));
    }
  }
  Assignments assignments() const { return {rows, row_begin, expert_ids, weights}; }

  std::vector<uint32_t> rows, row_begin, expert_ids;
  std::vector<float> weights;
};

// Every expert whole on `replicas` different nodes.
inline std::vector<mesh::ExpertReplicas> RandomReplicas(uint32_t experts, uint32_t nodes,
                                                        uint32_t replicas, std::mt19937* random) {
  std::vector<uint32_t> all(nodes);
  std::iota(all.begin(), all.end(), 0);
  std::vector<mesh::ExpertReplicas> placed(experts);
  for (mesh::ExpertReplicas& expert : placed) {
    const uint32_t count = std::min(replicas, nodes);
    for (uint32_t i = 0; i < count; ++i) {
      std::swap(all[i], all[i + (*random)() % (nodes - i)]);
    }
    expert.slices.emplace_back(all.begin(), all.begin() + count);
    std::sort(expert.slices[0].begin(), expert.slices[0].end());
  }
  return placed;
}

// Replicas of each expert get shares, drawn at random.
inline void DrawShares(std::vector<mesh::ExpertReplicas>* placed, std::mt19937* random) {
  for (mesh::ExpertReplicas& expert : *placed) {
    float sum = 0;
    std::vector<float>& shares = expert.shares.emplace_back();
    for (size_t i = 0; i < expert.slices[0].size(); ++i) {
      shares.push_back(static_cast<float>(1 + ((*random)() % 100)));
      sum += shares.back();
    }
    for (float& share : shares) {
      share /= sum;
    }
  }
}

}  // namespace expertmesh::plan

#endif  // EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_PLAN_RANDOM_BATCHES_H_
