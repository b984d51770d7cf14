// Cost of planning in nanoseconds per assignment, single-threaded, 128 experts, k = 8:
//   Plan          the plan alone
//   RouteAndPlan  routing from given logits (Qwen3's), then the plan
//   PlanByShares  the plan alone, where replicas have shares
// Arguments: tokens, nodes, replicas of each expert. Counters `destinations` and `uniform` are the
// mean nodes per token of the plan and of a replica drawn at random for every assignment.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <vector>

#include "common/gate/routing.h"
#include "router_service/plan/planner.h"
#include "tests/unit/router_service/plan/random_batches.h"

namespace expertmesh::plan {
namespace {

constexpr uint32_t kExperts = 128;
constexpr uint32_t kTopK = 8;

void CountAssignments(benchmark::State& state, uint32_t tokens) {
  state.counters["assignment"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * tokens * kTopK,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void PlanBatches(benchmark::State& state, bool by_shares) {
  const auto tokens = static_cast<uint32_t>(state.range(0));
  const auto nodes = static_cast<uint32_t>(state.range(1));
  std::mt19937 random(3);
  std::vector<mesh::ExpertReplicas> replicas =
      RandomReplicas(kExperts, nodes, static_cast<uint32_t>(state.range(2)), &random);
  std::vector<RandomBatch> batches;
  for (int i = 0; i < 16; ++i) {
    batches.emplace_back(tokens, kExperts, kTopK, &random);
  }
  if (by_shares) {
    DrawShares(&replicas, &random);
  }
  NodePlanPool pool;
  Planner planner;
  std::vector<NodePlan> in_flight;
  uint64_t transfers = 0;
  double uniform = 0;
  size_t next = 0;
  for (auto _ : state) {
    BatchPlan& plan = planner.Plan(
        replicas, batches[next++ % batches.size()].assignments(),
        [](mesh::NodeIndex node) { return uint64_t{node % 3}; }, &pool);
    transfers += plan.transfers;
    uniform += plan.uniform_transfers;
    in_flight.swap(plan.nodes);
    pool.Recycle(&in_flight);
  }
  CountAssignments(state, tokens);
  const double planned = static_cast<double>(state.iterations()) * tokens;
  state.counters["destinations"] = static_cast<double>(transfers) / planned;
  state.counters["uniform"] = uniform / planned;
}

void Plan(benchmark::State& state) { PlanBatches(state, false); }
BENCHMARK(Plan)
    ->ArgNames({"tokens", "nodes", "replicas"})
    ->ArgsProduct({{1, 64, 512}, {1, 4, 32}, {1, 2}});

void PlanByShares(benchmark::State& state) { PlanBatches(state, true); }
BENCHMARK(PlanByShares)
    ->ArgNames({"tokens", "nodes", "replicas"})
    ->ArgsProduct({{1, 64, 512, 4096}, {4, 32}, {2}});

void RouteAndPlan(benchmark::State& state) {
  const auto tokens = static_cast<uint32_t>(state.range(0));
  std::mt19937 random(3);
  const std::vector<mesh::ExpertReplicas> replicas =
      RandomReplicas(kExperts, static_cast<uint32_t>(state.range(1)),
                     static_cast<uint32_t>(state.range(2)), &random);
  std::normal_distribution<float> normal;
  std::vector<float> logits(size_t{tokens} * kExperts);
  for (float& logit : logits) {
    logit = normal(random);
  }
  gate::RoutingRules rules;
  rules.options.num_experts = kExperts;
  rules.options.top_k = kTopK;
  rules.options.renormalise = Renormalise::kSum;
  rules.options.weight_dtype = WeightDtype::kModel;
  rules.activation_dtype = Dtype::kBF16;
  const gate::RequestTokens request{tokens};
  const gate::RoutingInput input{{&request, 1}, logits};
  gate::RoutingScratch scratch;
  gate::RoutedTokens routed;
  std::vector<uint32_t> rows(tokens);
  std::iota(rows.begin(), rows.end(), 0);
  NodePlanPool pool;
  Planner planner;
  std::vector<NodePlan> in_flight;
  for (auto _ : state) {
    gate::RouteTokens(rules, input, &scratch, &routed);
    BatchPlan& plan = planner.Plan(
        replicas, {rows, routed.token_begin, routed.expert_ids, routed.weights},
        [](mesh::NodeIndex) { return uint64_t{0}; }, &pool);
    in_flight.swap(plan.nodes);
    pool.Recycle(&in_flight);
  }
  CountAssignments(state, tokens);
}
BENCHMARK(RouteAndPlan)
    ->ArgNames({"tokens", "nodes", "replicas"})
    ->ArgsProduct({{1, 512}, {4, 32}, {1, 2}});

}  // namespace
}  // namespace expertmesh::plan
