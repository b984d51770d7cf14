// Cost of routing in nanoseconds per assignment (token x slot), single-threaded where
// nothing else is said:
//   Routing/*  score, selection and weights from given logits
//   Logits/*   the gate's matrix product over bfloat16 rows, in nanoseconds per token
#include <benchmark/benchmark.h>

#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "common/gate/gate.h"
#include "common/gate/routing.h"

namespace expertmesh::gate {
namespace {

RoutingOptions Qwen3() {
  RoutingOptions options;
  options.num_experts = 128;
  options.top_k = 8;
  options.renormalise = Renormalise::kSum;
  options.weight_dtype = WeightDtype::kModel;
  return options;
}

RoutingOptions DeepSeekV3() {
  RoutingOptions options;
  options.num_experts = 256;
  options.top_k = 8;
  options.score = ScoreFunction::kSigmoid;
  options.select_bias = true;
  options.n_group = 8;
  options.topk_group = 4;
  options.group_score = GroupScore::kTopTwoSum;
  options.masked_choice = -std::numeric_limits<float>::infinity();
  options.renormalise = Renormalise::kSum;
  options.renormalise_epsilon = 1e-20f;
  options.scale = 2.5f;
  return options;
}

void Routing(benchmark::State& state, const RoutingOptions& options, TieOrder ties) {
  const auto tokens = static_cast<size_t>(state.range(0));
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> logits(tokens * options.num_experts);
  for (float& logit : logits) {
    logit = normal(random);
  }
  const std::vector<float> bias(options.num_experts, 0.01f);
  const RoutingRules rules{options, ties, Dtype::kBF16};
  const RequestTokens request{tokens};
  const RoutingInput input{{&request, 1}, logits, {.checkpoint = bias}};
  RoutedTokens routed;
  RoutingScratch scratch;
  for (auto _ : state) {
    RouteTokens(rules, input, &scratch, &routed);
    benchmark::DoNotOptimize(routed.weights.data());
  }
  const auto assignments = static_cast<double>(tokens * options.top_k);
  state.counters["assignment"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * assignments,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

BENCHMARK_CAPTURE(Routing, qwen3_e128_k8, Qwen3(), TieOrder::kLowestIndex)->Arg(1)->Arg(512);
BENCHMARK_CAPTURE(Routing, deepseek_v3_e256_k8, DeepSeekV3(), TieOrder::kLowestIndex)
    ->Arg(1)
    ->Arg(512);
BENCHMARK_CAPTURE(Routing, qwen3_e128_k8_torch_cpu, Qwen3(), TieOrder::kTorchCpu)->Arg(512);

// Arguments: tokens, d_model, experts, threads (1 or 2).
void Logits(benchmark::State& state) {
  const auto tokens = static_cast<size_t>(state.range(0));
  const auto d_model = static_cast<size_t>(state.range(1));
  RoutingOptions options;
  options.num_experts = static_cast<uint32_t>(state.range(2));
  options.top_k = 1;
  const std::vector<uint16_t> weight(options.num_experts * d_model, BF16FromFloat(0.01f));
  const std::vector<uint16_t> x(tokens * d_model, BF16FromFloat(1.0f));
  GateWeights weights;
  weights.weight = MatrixView::RowMajor(weight.data(), Dtype::kBF16, options.num_experts, d_model);
  const auto gate = Gate::Create(weights, options, Dtype::kBF16);
  if (!gate.ok()) {
    state.SkipWithError(gate.status().ToString().c_str());
    return;
  }
  ThreadPool threads(1);
  ThreadPool* const pool = state.range(3) > 1 ? &threads : nullptr;
  std::vector<float> logits(tokens * options.num_experts);
  for (auto _ : state) {
    const absl::Status status =
        (*gate)->Logits(x.data(), Dtype::kBF16, tokens, absl::MakeSpan(logits), pool);
    benchmark::DoNotOptimize(status.ok());
  }
  state.counters["token"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * static_cast<double>(tokens),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

BENCHMARK(Logits)
    ->ArgsProduct({{1, 64, 512}, {2048}, {128}, {1, 2}})
    ->ArgsProduct({{1, 64, 512}, {7168}, {256}, {1, 2}})
    ->UseRealTime();

}  // namespace
}  // namespace expertmesh::gate
