// The biases of all layers on their way, step by step.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_BIAS_STEERING_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_BIAS_STEERING_H_

#include <cstdint>
#include <map>
#include <vector>

#include "common/balance/bias_policy.h"
#include "router_service/balance/decision.h"
#include "router_service/balance/load_counts.h"
#include "router_service/balance/steered_model.h"

namespace expertmesh::balance_control {

// Not thread-safe.
class BiasSteering {
 public:
  // `model` must outlive it.
  explicit BiasSteering(const SteeredModel* model) : model_(model) {}

  // Goes on from there: what was counted before counts for nothing.
  void Reset(const std::map<uint32_t, LayerDecision>& layers);

  void SetPolicy(uint32_t layer, const balance::BiasPolicy& policy);
  // `bias` passes CheckBias.
  void SetBias(uint32_t layer, std::vector<float> bias);

  // One step of every layer of which enough was counted since its last. `totals` do not shrink from
  // call to call. True when a bias has changed.
  bool Step(const LoadCounts& totals);

  // All that can be steered.
  std::map<uint32_t, LayerDecision> Layers() const;
  balance::BiasOutcome outcome(uint32_t layer) const { return layers_.at(layer).outcome; }

 private:
  struct Layer {
    balance::LayerBias bias;
    balance::BiasOutcome outcome;
    // Totals since when tokens are counted; none yet while `settling`: batches and reports that are
    // under way when a bias changes still speak of the one before.
    LayerCounts since;
    bool settling;
  };

  static bool StepLayer(const LayerCounts& totals, Layer* layer);

  const SteeredModel* const model_;
  std::map<uint32_t, Layer> layers_;
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_BIAS_STEERING_H_
