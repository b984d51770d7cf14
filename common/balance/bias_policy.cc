#include "common/balance/bias_policy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace expertmesh::balance {
namespace {

// The share of the budget that is aimed at: the rest is for traffic that changes between two steps.
constexpr double kAim = 0.85;
// The share of a step's distance that is tried first.
constexpr double kFirstTry = 1.0 / 1024;
constexpr double kLargestGrowth = 2.0;

absl::Status CheckRange(absl::string_view field, float value, float low, float high) {
  if (value >= low && value <= high) {  // Not so for NaN.
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; use ", low, " to ", high));
}

double SumOfDistances(absl::Span<const float> a, absl::Span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += std::fabs(static_cast<double>(a[i]) - b[i]);
  }
  return sum;
}

// The share of tokens that change, with two standard errors on both sides; some were compared.
struct ChangedShare {
  double low = 0;
  double high = 0;
};

ChangedShare MeasureChanged(const LayerWindow& window) {
  const auto compared = static_cast<double>(window.compared);
  const double share = static_cast<double>(window.changed) / compared;
  // One token more than was seen, so that none seen is not taken for none there.
  const double error = std::sqrt((static_cast<double>(window.changed) + 1) / compared / compared);
  return {share - 2 * error, share + 2 * error};
}

// `from` and then `scale` of the way to `to`.
std::vector<float> Towards(absl::Span<const float> from, absl::Span<const float> to, double scale) {
  std::vector<float> result(from.size());
  for (size_t i = 0; i < from.size(); ++i) {
    result[i] = static_cast<float>(from[i] + (static_cast<double>(to[i]) - from[i]) * scale);
  }
  return result;
}

// How much of `rate` expert is moved by, -1 to 1 with kSign.
double Direction(BiasRule rule, double mean, double load) {
  if (rule == BiasRule::kProportional) {
    return mean == 0 ? 0 : (mean - load) / mean;
  }
  return mean > load ? 1 : mean < load ? -1 : 0;
}

}  // namespace

absl::string_view NameOf(BiasRule rule) {
  switch (rule) {
    case BiasRule::kFrozen:
      return "frozen";
    case BiasRule::kSign:
      return "sign";
    case BiasRule::kProportional:
      return "proportional";
  }
  EXPERTMESH_CHECK(false);
}

absl::StatusOr<BiasRule> ParseBiasRule(absl::string_view name) {
  for (const BiasRule rule : {BiasRule::kFrozen, BiasRule::kSign, BiasRule::kProportional}) {
    if (name == NameOf(rule)) {
      return rule;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("rule is '", name, "'; use frozen, sign or proportional"));
}

absl::string_view NameOf(BiasOutcome outcome) {
  switch (outcome) {
    case BiasOutcome::kFrozen:
      return "frozen";
    case BiasOutcome::kPaused:
      return "paused";
    case BiasOutcome::kTooFewTokens:
      return "too few tokens";
    case BiasOutcome::kStepped:
      return "stepped";
    case BiasOutcome::kHeldByBudget:
      return "held by the quality budget";
    case BiasOutcome::kBackedOff:
      return "backed off";
  }
  EXPERTMESH_CHECK(false);
}

absl::Status ValidateBiasPolicy(const BiasPolicy& policy) {
  constexpr float kMost = 1e6f;
  for (const absl::Status& status :
       {CheckRange("rate", policy.rate, 0, kMost), CheckRange("clamp", policy.clamp, 0, kMost),
        CheckRange("decay", policy.decay, 0, 1),
        CheckRange("quality_budget", policy.quality_budget, 0, 1)}) {
    if (!status.ok()) {
      return status;
    }
  }
  if (policy.step_tokens == 0) {
    return absl::InvalidArgumentError("step_tokens is 0; use 1 or more");
  }
  return absl::OkStatus();
}

LayerBias::LayerBias(BiasPolicy policy, std::vector<float> checkpoint, std::vector<float> bias)
    : policy_(policy), checkpoint_(std::move(checkpoint)), bias_(std::move(bias)) {
  EXPERTMESH_CHECK(checkpoint_.size() == bias_.size());
}

void LayerBias::SetBias(std::vector<float> bias) {
  EXPERTMESH_CHECK(bias.size() == checkpoint_.size());
  bias_ = std::move(bias);
}

double LayerBias::AllowedDistance(const LayerWindow& window, double distance) const {
  if (policy_.quality_budget >= 1) {
    return std::numeric_limits<double>::infinity();
  }
  if (policy_.quality_budget == 0) {
    return 0;
  }
  if (distance == 0) {
    return kFirstTry * static_cast<double>(policy_.rate) * static_cast<double>(bias_.size());
  }
  if (window.compared == 0) {
    return distance;  // Nothing is known of it.
  }
  const double aim = kAim * policy_.quality_budget;
  return distance * std::min(aim / MeasureChanged(window).high, kLargestGrowth);
}

bool LayerBias::IsHeld() const {
  return policy_.rule != BiasRule::kFrozen && !policy_.paused && policy_.quality_budget < 1;
}

bool LayerBias::BackOff(const LayerWindow& window) {
  if (!IsHeld() || window.compared == 0 || AtCheckpoint()) {
    return false;
  }
  const ChangedShare share = MeasureChanged(window);
  if (share.low <= policy_.quality_budget) {
    return false;
  }
  bias_ = Towards(checkpoint_, bias_, kAim * policy_.quality_budget / share.high);
  return true;
}

BiasOutcome LayerBias::Step(const LayerWindow& window) {
  if (policy_.paused) {
    return BiasOutcome::kPaused;
  }
  if (policy_.rule == BiasRule::kFrozen) {
    return BiasOutcome::kFrozen;
  }
  if (window.tokens < policy_.step_tokens) {
    return BiasOutcome::kTooFewTokens;
  }
  EXPERTMESH_CHECK(window.assignments.size() == bias_.size());
  double mean = 0;
  for (const uint64_t load : window.assignments) {
    mean += static_cast<double>(load);
  }
  mean /= static_cast<double>(bias_.size());
  std::vector<float> next(bias_.size());
  for (size_t i = 0; i < bias_.size(); ++i) {
    const double kept = (static_cast<double>(bias_[i]) - checkpoint_[i]) * (1 - policy_.decay);
    const double step =
        policy_.rate * Direction(policy_.rule, mean, static_cast<double>(window.assignments[i]));
    const double clamp = policy_.clamp;
    next[i] = static_cast<float>(checkpoint_[i] + std::clamp(kept + step, -clamp, clamp));
  }
  const double before = SumOfDistances(bias_, checkpoint_);
  const double wanted = SumOfDistances(next, checkpoint_);
  const double allowed = AllowedDistance(window, before);
  if (wanted > allowed) {
    next = Towards(checkpoint_, next, allowed / wanted);
  }
  bias_ = std::move(next);
  if (wanted <= allowed) {
    return BiasOutcome::kStepped;
  }
  // Below the aim's share of what was: the budget itself was passed.
  return allowed < kAim * before ? BiasOutcome::kBackedOff : BiasOutcome::kHeldByBudget;
}

}  // namespace expertmesh::balance
