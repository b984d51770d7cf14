#include "common/balance/budget_division.h"

#include "common/base/check.h"

namespace expertmesh::balance {

void BudgetDivision::AddChoice(size_t layer, uint64_t copy_bytes, uint32_t loads, double level) {
  if (layer == layers_.size()) {
    layers_.emplace_back();
  }
  EXPERTMESH_CHECK(layer + 1 == layers_.size());
  layers_[layer].copy_bytes = copy_bytes;
  layers_[layer].choices.push_back({loads, level});
}

uint64_t BudgetDivision::LeastBytes() const {
  uint64_t bytes = 0;
  for (const Layer& layer : layers_) {
    bytes += layer.choices.front().loads * layer.copy_bytes;
  }
  return bytes;
}

size_t BudgetDivision::BestStep(const Layer& layer, double* gain) const {
  size_t best = layer.taken;
  *gain = 0;
  const Choice& now = layer.choices[layer.taken];
  for (size_t next = layer.taken + 1; next < layer.choices.size(); ++next) {
    const uint64_t bytes = (layer.choices[next].loads - now.loads) * layer.copy_bytes;
    const double lower = now.level - layer.choices[next].level;
    if (lower <= 0 || bytes > left_) {
      continue;
    }
    const double next_gain = lower / (static_cast<double>(bytes) + 1);
    if (next_gain > *gain) {
      best = next;
      *gain = next_gain;
    }
  }
  return best;
}

std::vector<size_t> BudgetDivision::Divide() {
  EXPERTMESH_CHECK(LeastBytes() <= left_);
  left_ -= LeastBytes();
  while (true) {
    Layer* best_layer = nullptr;
    size_t best_step = 0;
    double best_gain = 0;
    for (Layer& layer : layers_) {
      double gain = 0;
      const size_t step = BestStep(layer, &gain);
      if (gain > best_gain) {
        best_layer = &layer;
        best_step = step;
        best_gain = gain;
      }
    }
    if (best_layer == nullptr) {
      break;
    }
    const auto& choices = best_layer->choices;
    left_ -= (choices[best_step].loads - choices[best_layer->taken].loads) * best_layer->copy_bytes;
    best_layer->taken = best_step;
  }
  std::vector<size_t> taken;
  taken.reserve(layers_.size());
  for (const Layer& layer : layers_) {
    taken.push_back(layer.taken);
  }
  return taken;
}

}  // namespace expertmesh::balance
