#include "client/cpp/replay/layer_run.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/base/check.h"

namespace expertmesh::replay {
namespace {

double ViolationOf(const std::vector<double>& load) {
  const double sum = std::accumulate(load.begin(), load.end(), 0.0);
  return sum <= 0 ? 0
                  : *std::max_element(load.begin(), load.end()) * static_cast<double>(load.size()) /
                            sum -
                        1;
}

// Mean of all sizes.
double MeanBatchTokens(const LayerLoad& load) {
  const double batches =
      std::accumulate(load.batch_sizes.begin(), load.batch_sizes.end(), 0.0,
                      [](double sum, const BatchSize& size) { return sum + size.batches; });
  return batches > 0 ? load.tokens / batches : 0;
}

}  // namespace

LayerRun::LayerRun(const balance::RecordedLayer& layer, const balance::BiasPolicy& policy)
    : layer_(layer),
      bias_(policy, std::vector<float>(layer.num_experts), std::vector<float>(layer.num_experts)),
      counted_(layer.num_experts) {}

void LayerRun::Run(const LayerLoad& load, uint32_t max_steps) {
  EXPERTMESH_CHECK(load.assignments.size() == layer_.num_experts);
  const balance::BiasPolicy& policy = bias_.policy();
  changed_ = 0;
  if (policy.rule == balance::BiasRule::kFrozen || load.log_weights.empty() || load.tokens <= 0) {
    assignments_ = load.assignments;
    batch_violation_ = load.batch_violation;
  } else {
    const double steps = load.tokens / static_cast<double>(policy.step_tokens);
    RunBiased(load, static_cast<uint32_t>(std::clamp<double>(std::floor(steps), 1, max_steps)));
  }
  violation_ = ViolationOf(assignments_);
}

void LayerRun::RunBiased(const LayerLoad& load, uint32_t steps) {
  assignments_.assign(layer_.num_experts, 0);
  shift_.resize(layer_.num_experts);
  biased_.resize(layer_.num_experts);
  Choose(load.log_weights, layer_.top_k, &without_);
  const double tokens = load.tokens / steps;
  for (uint32_t step = 0; step < steps; ++step) {
    for (uint32_t i = 0; i < layer_.num_experts; ++i) {
      shift_[i] = kBiasSlope * bias_.bias()[i];
      biased_[i] = load.log_weights[i] + shift_[i];
    }
    Choose(biased_, layer_.top_k, &with_);
    const double changed = bias_.AtCheckpoint() ? 0 : ChangedShare(without_, with_, shift_);
    for (uint32_t i = 0; i < layer_.num_experts; ++i) {
      assignments_[i] += tokens * with_.chance[i];
      counted_[i] += tokens * with_.chance[i];
    }
    changed_ += changed / steps;
    CountForBias(tokens, changed);
  }
  batch_violation_ = BatchViolation(with_.chance, load.noise, MeanBatchTokens(load));
}

void LayerRun::CountForBias(double tokens, double changed) {
  counted_tokens_ += tokens;
  counted_changes_ += tokens * changed;
  std::vector<uint64_t> assignments(counted_.size());
  std::transform(counted_.begin(), counted_.end(), assignments.begin(),
                 [](double count) { return static_cast<uint64_t>(std::llround(count)); });
  balance::LayerWindow window;
  window.tokens = static_cast<uint64_t>(std::llround(counted_tokens_));
  window.assignments = assignments;
  window.compared = window.tokens;
  window.changed = static_cast<uint64_t>(std::llround(counted_changes_));
  if (bias_.Step(window) == balance::BiasOutcome::kTooFewTokens) {
    return;
  }
  std::fill(counted_.begin(), counted_.end(), 0);
  counted_tokens_ = 0;
  counted_changes_ = 0;
}

}  // namespace expertmesh::replay
