// How the selection bias of a layer follows its load: balancing without an auxiliary loss
// (MOE literature: Wang et al. 2024; DeepSeek-V3), with a bound on how many tokens it may touch.
//
// The bias is added to scores for selection only; weights come from the scores as they were.
#ifndef EXPERTMESH_COMMON_BALANCE_BIAS_POLICY_H_
#define EXPERTMESH_COMMON_BALANCE_BIAS_POLICY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace expertmesh::balance {

// kFrozen: the bias stays what it is, which is the checkpoint's unless one was set.
// kSign: bias += rate * sign(mean load - load), where sign(0) = 0.
// kProportional: bias += rate * (mean load - load) / mean load.
enum class BiasRule { kFrozen, kSign, kProportional };

// "frozen", "sign", "proportional".
absl::string_view NameOf(BiasRule rule);
absl::StatusOr<BiasRule> ParseBiasRule(absl::string_view name);

struct BiasPolicy {
  BiasRule rule = BiasRule::kFrozen;
  // In units of scores, per step.
  float rate = 1e-3f;
  // No expert's bias is further from the checkpoint's than this.
  float clamp = 1.0f;
  // Share of the distance to the checkpoint's bias that each step takes back, 0 to 1.
  float decay = 0.0f;
  // Share of tokens that may go to other experts than the checkpoint alone would choose, 0 to 1; at
  // 1 it is no bound, and is not asked.
  float quality_budget = 0.02f;
  // Tokens of the layer that a step is made of, at least.
  uint64_t step_tokens = 2048;
  // No steps until it is resumed.
  bool paused = false;

  friend bool operator==(const BiasPolicy&, const BiasPolicy&) = default;
};

// INVALID_ARGUMENT naming the field, its value and what is accepted.
absl::Status ValidateBiasPolicy(const BiasPolicy& policy);

// What a layer's tokens did under one bias.
struct LayerWindow {
  uint64_t tokens = 0;
  // [num_experts]
  absl::Span<const uint64_t> assignments;
  // Tokens whose experts were compared with what the checkpoint alone chooses, and how many of
  // these differed.
  uint64_t compared = 0;
  uint64_t changed = 0;
};

// What a step came to, for those who ask why nothing happens.
enum class BiasOutcome {
  kFrozen,        // The policy makes no steps.
  kPaused,        // Paused.
  kTooFewTokens,  // Fewer than step_tokens were counted.
  kStepped,       // The bias follows the load.
  kHeldByBudget,  // It does as far as the quality budget lets it.
  kBackedOff,     // Too many tokens had changed: it is nearer the checkpoint's than before.
};

// "frozen", "paused", "too few tokens", ...
absl::string_view NameOf(BiasOutcome outcome);

// The bias of one layer on its way. Not thread-safe.
//
// The budget: the share of changed tokens grows about as the distance to the checkpoint's bias
// does, so that distance is what is bounded. It starts at a thousandth of a step, doubles at most
// while the share is far from the bound, and is scaled to what the share that was measured allows;
// 0.85 of the budget is aimed at, by the upper end of what was measured (two standard errors). What
// changes with the traffic is answered one step later. A bias that was set need not wait for a
// step: BackOff().
class LayerBias {
 public:
  // All of one size; `policy` is valid. `bias`: where to go on from.
  LayerBias(BiasPolicy policy, std::vector<float> checkpoint, std::vector<float> bias);

  // `window`: counted under bias().
  BiasOutcome Step(const LayerWindow& window);

  // Between steps: when what was counted, however few tokens, proves that more of them change than
  // the budget allows, the bias goes as near to the checkpoint's as a step would bring it. True: it
  // did. Never where no steps are made, or there is no bound: what was set stays.
  bool BackOff(const LayerWindow& window);
  // Whether BackOff() may ever do something, as policies are now.
  bool IsHeld() const;

  // Takes effect with the next step.
  void SetPolicy(const BiasPolicy& policy) { policy_ = policy; }
  // As the constructor's; of the same size.
  void SetBias(std::vector<float> bias);

  const BiasPolicy& policy() const { return policy_; }
  const std::vector<float>& checkpoint() const { return checkpoint_; }
  const std::vector<float>& bias() const { return bias_; }
  bool AtCheckpoint() const { return bias_ == checkpoint_; }

 private:
  // Largest sum of distances to the checkpoint's bias that the next bias may have.
  double AllowedDistance(const LayerWindow& window, double distance) const;

  BiasPolicy policy_;
  const std::vector<float> checkpoint_;
  std::vector<float> bias_;
};

}  // namespace expertmesh::balance

#endif  // EXPERTMESH_COMMON_BALANCE_BIAS_POLICY_H_
