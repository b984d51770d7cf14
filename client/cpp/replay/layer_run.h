// One layer under one policy: its bias, and what its experts get.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_LAYER_RUN_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_LAYER_RUN_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "client/cpp/replay/expert_choice.h"
#include "client/cpp/replay/load_source.h"
#include "common/balance/bias_policy.h"

namespace expertmesh::replay {

// Not thread-safe.
class LayerRun {
 public:
  // `policy` is valid. kFrozen: tokens go where the checkpoint sends them.
  LayerRun(const balance::RecordedLayer& layer, const balance::BiasPolicy& policy);

  // The load of one interval, in `steps` equal parts at most, each of which may move the bias.
  void Run(const LayerLoad& load, uint32_t max_steps);

  // [num_experts] Of the last interval, with the bias.
  const std::vector<double>& assignments() const { return assignments_; }
  // Share of its tokens that the bias sent elsewhere.
  double changed() const { return changed_; }
  // MaxVio of all of it, and of one batch.
  double violation() const { return violation_; }
  double batch_violation() const { return batch_violation_; }
  const std::vector<float>& bias() const { return bias_.bias(); }

 private:
  void RunBiased(const LayerLoad& load, uint32_t steps);
  void CountForBias(double tokens, double changed);

  const balance::RecordedLayer layer_;
  balance::LayerBias bias_;
  std::vector<double> assignments_;
  double changed_ = 0;
  double violation_ = 0;
  double batch_violation_ = 0;
  // What the bias has not yet made a step of.
  std::vector<double> counted_;
  double counted_tokens_ = 0;
  double counted_changes_ = 0;
  // Working memory.
  ExpertChoice without_;
  ExpertChoice with_;
  std::vector<double> shift_;
  std::vector<double> biased_;
};

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_LAYER_RUN_H_
