#include "router_service/balance/bias_steering.h"

#include <algorithm>
#include <utility>

namespace expertmesh::balance_control {

using balance::BiasOutcome;
using balance::BiasPolicy;

void BiasSteering::Reset(const std::map<uint32_t, LayerDecision>& layers) {
  layers_.clear();
  for (const auto& [index, layer] : layers) {
    balance::LayerBias bias(layer.policy, model_->layers.at(index).checkpoint_bias, layer.bias);
    layers_.emplace(index, Layer{std::move(bias), BiasOutcome::kFrozen, {}, true});
  }
}

void BiasSteering::SetPolicy(uint32_t layer, const BiasPolicy& policy) {
  layers_.at(layer).bias.SetPolicy(policy);
}

void BiasSteering::SetBias(uint32_t layer, std::vector<float> bias, const LoadCounts& totals) {
  Layer& steered = layers_.at(layer);
  steered.bias.SetBias(std::move(bias));
  steered.settling = true;
  const auto counts = totals.find(layer);
  steered.set_at = counts == totals.end() ? LayerCounts() : counts->second;
}

bool BiasSteering::BackOffLayer(const LayerCounts& totals, Layer* layer) {
  if (!layer->set_at) {
    return false;
  }
  const LayerCounts counted = totals.Since(*layer->set_at);
  if (!layer->bias.BackOff(
          {counted.tokens, counted.assignments, counted.compared, counted.changed})) {
    return false;
  }
  layer->outcome = BiasOutcome::kBackedOff;
  layer->settling = true;
  layer->set_at.reset();
  return true;
}

bool BiasSteering::StepLayer(const LayerCounts& totals, Layer* layer) {
  if (BackOffLayer(totals, layer)) {
    return true;
  }
  if (layer->settling) {
    layer->since = totals;
    layer->settling = false;
    return false;
  }
  const LayerCounts counted = totals.Since(layer->since);
  const std::vector<float> before = layer->bias.bias();
  layer->outcome =
      layer->bias.Step({counted.tokens, counted.assignments, counted.compared, counted.changed});
  if (layer->outcome == BiasOutcome::kTooFewTokens) {
    return false;
  }
  layer->since = totals;
  if (layer->outcome != BiasOutcome::kFrozen && layer->outcome != BiasOutcome::kPaused) {
    layer->set_at.reset();  // Steps hold it from now on.
  }
  const bool changed = layer->bias.bias() != before;
  // Without a budget it does not matter which bias a token was chosen with.
  layer->settling = changed && layer->bias.policy().quality_budget < 1;
  return changed;
}

bool BiasSteering::ChangeAll(const LoadCounts& totals, bool (*change)(const LayerCounts&, Layer*)) {
  bool changed = false;
  for (auto& [index, layer] : layers_) {
    const auto counts = totals.find(index);
    if (counts != totals.end()) {
      changed = change(counts->second, &layer) || changed;
    }
  }
  return changed;
}

bool BiasSteering::Step(const LoadCounts& totals) { return ChangeAll(totals, &StepLayer); }

bool BiasSteering::BackOff(const LoadCounts& totals) { return ChangeAll(totals, &BackOffLayer); }

bool BiasSteering::OnTrial() const {
  return std::any_of(layers_.begin(), layers_.end(), [](const auto& layer) {
    return layer.second.set_at.has_value() && layer.second.bias.IsHeld();
  });
}

std::map<uint32_t, LayerDecision> BiasSteering::Layers() const {
  std::map<uint32_t, LayerDecision> layers;
  for (const auto& [index, layer] : layers_) {
    layers[index] = {layer.bias.policy(), layer.bias.bias()};
  }
  return layers;
}

}  // namespace expertmesh::balance_control
