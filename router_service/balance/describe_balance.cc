#include "router_service/balance/describe_balance.h"

#include <algorithm>
#include <cmath>

#include "common/balance/measures.h"

namespace expertmesh::balance_control {
namespace {

float LargestDistance(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::fabs(a[i] - b[i]));
  }
  return largest;
}

void MeasureLoad(const std::vector<uint64_t>& load, uint32_t top_k, v1::LayerMeasures* measures) {
  const double variation = balance::CoefficientOfVariation(load);
  measures->set_load_variation(variation);
  measures->set_load_loss(variation * variation);
  measures->set_load_entropy(balance::NormalisedEntropy(load));
  measures->set_mean_squared_share(balance::MeanSquaredShare(load));
  measures->set_dead_experts(static_cast<uint32_t>(balance::DeadExperts(load).size()));
  measures->set_collapse(balance::FindCollapse(load, top_k).text);
}

}  // namespace

void DescribeLayers(const SteeredModel& model, const BiasSteering& steering,
                    const LoadWindow& window, const std::map<uint32_t, v1::LayerMeasures>& measures,
                    v1::Balance* balance) {
  const std::map<uint32_t, LayerDecision> decided = steering.Layers();
  for (const auto& [index, steered] : model.layers) {
    v1::LayerBalance& layer = *balance->add_layers();
    layer.set_layer(index);
    layer.set_not_steerable(steered.not_steerable);
    layer.set_at_checkpoint(true);
    if (const auto it = decided.find(index); it != decided.end()) {
      *layer.mutable_policy() = ToProto(it->second.policy);
      layer.set_outcome(std::string(balance::NameOf(steering.outcome(index))));
      layer.set_at_checkpoint(it->second.bias == steered.checkpoint_bias);
      layer.set_bias_distance(LargestDistance(it->second.bias, steered.checkpoint_bias));
    }
    if (const auto it = window.counts.find(index); it != window.counts.end()) {
      layer.set_tokens(it->second.tokens);
      layer.set_max_violation(balance::MaxViolation(it->second.assignments));
      layer.set_compared_tokens(it->second.compared);
      layer.set_changed_tokens(it->second.changed);
    }
    if (const auto it = measures.find(index); it != measures.end()) {
      *layer.mutable_measures() = it->second;
    }
    if (const auto it = window.counts.find(index); it != window.counts.end()) {
      MeasureLoad(it->second.assignments, steered.top_k, layer.mutable_measures());
    }
  }
}

v1::Bias DescribeBias(const SteeredModel& model, uint64_t epoch, const LayerBiases& biases) {
  v1::Bias bias;
  bias.set_epoch(epoch);
  bias.set_outline(model.outline);
  for (const auto& [index, values] : biases) {
    v1::LayerBias& layer = *bias.add_layers();
    layer.set_layer(index);
    layer.mutable_values()->Add(values.begin(), values.end());
  }
  return bias;
}

v1::GetLoadResponse DescribeLoad(const LoadCounts& counts, absl::Duration window, uint64_t epoch) {
  v1::GetLoadResponse response;
  response.set_epoch(epoch);
  response.set_window_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(window)));
  for (const auto& [index, layer] : counts) {
    v1::LayerLoad& load = *response.add_layers();
    load.set_layer(index);
    load.set_tokens(layer.tokens);
    load.mutable_assignments()->Add(layer.assignments.begin(), layer.assignments.end());
    load.set_compared_tokens(layer.compared);
    load.set_changed_tokens(layer.changed);
    load.set_node_us(layer.node_us);
  }
  return response;
}

}  // namespace expertmesh::balance_control
