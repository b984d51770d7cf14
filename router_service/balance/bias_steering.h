// The biases of all layers on their way, step by step.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_BIAS_STEERING_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_BIAS_STEERING_H_

#include <cstdint>
#include <map>
#include <optional>
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
  // `bias` passes CheckBias. `totals`: now; what is counted from here on is its own, but for
  // batches under way.
  void SetBias(uint32_t layer, std::vector<float> bias, const LoadCounts& totals);

  // One step of every layer of which enough was counted since its last. `totals` do not shrink from
  // call to call. True when a bias has changed.
  bool Step(const LoadCounts& totals);

  // A bias that was set is on trial until a step was made from it: as soon as what was counted
  // since proves that it passes the quality budget, it is taken back to that. Step() does so, too;
  // this does nothing else, and may be called more often. True when a bias has changed.
  bool BackOff(const LoadCounts& totals);
  // Whether BackOff() may do something.
  bool OnTrial() const;

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
    // Totals when the bias was set that is on trial.
    std::optional<LayerCounts> set_at = std::nullopt;
  };

  static bool StepLayer(const LayerCounts& totals, Layer* layer);
  static bool BackOffLayer(const LayerCounts& totals, Layer* layer);
  // `change` of every layer that was counted.
  bool ChangeAll(const LoadCounts& totals, bool (*change)(const LayerCounts&, Layer*));

  const SteeredModel* const model_;
  std::map<uint32_t, Layer> layers_;
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_BIAS_STEERING_H_
