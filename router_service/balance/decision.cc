#include "router_service/balance/decision.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/peer_text.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"

namespace expertmesh::balance_control {
namespace {

using balance::BiasPolicy;
using balance::BiasRule;

constexpr size_t kMostId = 64;

v1::BalanceRule ToProto(BiasRule rule) {
  switch (rule) {
    case BiasRule::kFrozen:
      return v1::BALANCE_RULE_FROZEN;
    case BiasRule::kSign:
      return v1::BALANCE_RULE_SIGN;
    case BiasRule::kProportional:
      return v1::BALANCE_RULE_PROPORTIONAL;
  }
  EXPERTMESH_CHECK(false);
}

absl::StatusOr<BiasRule> RuleFromProto(v1::BalanceRule rule, BiasRule unspecified) {
  switch (rule) {
    case v1::BALANCE_RULE_UNSPECIFIED:
      return unspecified;
    case v1::BALANCE_RULE_FROZEN:
      return BiasRule::kFrozen;
    case v1::BALANCE_RULE_SIGN:
      return BiasRule::kSign;
    case v1::BALANCE_RULE_PROPORTIONAL:
      return BiasRule::kProportional;
    default:
      return absl::InvalidArgumentError(absl::StrCat("policy.rule is ", static_cast<int>(rule),
                                                     "; use FROZEN, SIGN or PROPORTIONAL"));
  }
}

}  // namespace

LayerBiases BiasesOf(const Decision& decision) {
  LayerBiases biases;
  for (const auto& [layer, decided] : decision.layers) {
    biases[layer] = decided.bias;
  }
  return biases;
}

Decision InitialDecision(const SteeredModel& model, const BiasPolicy& policy) {
  Decision decision;
  for (const auto& [index, layer] : model.layers) {
    if (layer.not_steerable.empty()) {
      decision.layers[index] = {policy, layer.checkpoint_bias};
    }
  }
  return decision;
}

internal::v1::Decision ToProto(const SteeredModel& model, const Decision& decision) {
  internal::v1::Decision proto;
  proto.set_term(decision.term);
  proto.set_epoch(decision.epoch);
  proto.set_authority_id(decision.authority_id);
  proto.set_outline(model.outline);
  for (const auto& [index, layer] : decision.layers) {
    internal::v1::LayerDecision& written = *proto.add_layers();
    written.set_layer(index);
    *written.mutable_policy() = ToProto(layer.policy);
    if (layer.bias != model.layers.at(index).checkpoint_bias) {
      written.mutable_bias()->Add(layer.bias.begin(), layer.bias.end());
    }
  }
  if (decision.plan != nullptr) {
    *proto.mutable_plan() = ToProto(*decision.plan);
  }
  return proto;
}

absl::StatusOr<Decision> FromProto(const SteeredModel& model, const internal::v1::Decision& proto,
                                   const std::string& from) {
  RETURN_IF_ERROR(CheckOutline(model, proto.outline(), from));
  Decision decision = InitialDecision(model, BiasPolicy());
  decision.term = proto.term();
  decision.epoch = proto.epoch();
  decision.authority_id = PeerText(proto.authority_id(), kMostId);
  for (const internal::v1::LayerDecision& read : proto.layers()) {
    if (const absl::Status status = CheckSteerable(model, read.layer()); !status.ok()) {
      return WithContext(from, status);
    }
    LayerDecision& layer = decision.layers[read.layer()];
    ASSIGN_OR_RETURN(layer.policy, WithChange(BiasPolicy(), read.policy()));
    if (read.bias_size() > 0) {
      RETURN_IF_ERROR(CheckBias(read.layer(), model.layers.at(read.layer()), read.bias()));
      layer.bias.assign(read.bias().begin(), read.bias().end());
    }
  }
  if (proto.has_plan()) {
    ASSIGN_OR_RETURN(balance::PlacementPlan plan, PlanFromProto(model, proto.plan()));
    decision.plan = std::make_shared<const balance::PlacementPlan>(std::move(plan));
  }
  return decision;
}

v1::BalancePolicy ToProto(const BiasPolicy& policy) {
  v1::BalancePolicy proto;
  proto.set_rule(ToProto(policy.rule));
  proto.set_rate(policy.rate);
  proto.set_clamp(policy.clamp);
  proto.set_decay(policy.decay);
  proto.set_quality_budget(policy.quality_budget);
  proto.set_step_tokens(policy.step_tokens);
  proto.set_paused(policy.paused);
  return proto;
}

absl::StatusOr<BiasPolicy> WithChange(const BiasPolicy& policy, const v1::BalancePolicy& change) {
  BiasPolicy changed = policy;
  ASSIGN_OR_RETURN(changed.rule, RuleFromProto(change.rule(), policy.rule));
  changed.rate = change.has_rate() ? change.rate() : policy.rate;
  changed.clamp = change.has_clamp() ? change.clamp() : policy.clamp;
  changed.decay = change.has_decay() ? change.decay() : policy.decay;
  changed.quality_budget =
      change.has_quality_budget() ? change.quality_budget() : policy.quality_budget;
  changed.step_tokens = change.has_step_tokens() ? change.step_tokens() : policy.step_tokens;
  changed.paused = change.has_paused() ? change.paused() : policy.paused;
  if (const absl::Status status = balance::ValidateBiasPolicy(changed); !status.ok()) {
    return WithContext("policy", status);
  }
  return changed;
}

absl::Status CheckBias(uint32_t layer, const SteeredLayer& steered,
                       absl::Span<const float> values) {
  if (values.size() != steered.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat("the bias of layer ", layer, " has ",
                                                   values.size(), " values; the layer has ",
                                                   steered.num_experts, " experts"));
  }
  for (size_t expert = 0; expert < values.size(); ++expert) {
    if (!std::isfinite(values[expert])) {
      return absl::InvalidArgumentError(absl::StrCat("the bias of layer ", layer, ", expert ",
                                                     expert, ", is ", values[expert],
                                                     "; use a finite number"));
    }
  }
  return absl::OkStatus();
}

internal::v1::LayerCounts ToProto(uint32_t layer, const LayerCounts& counts) {
  internal::v1::LayerCounts proto;
  proto.set_layer(layer);
  proto.set_tokens(counts.tokens);
  proto.set_compared_tokens(counts.compared);
  proto.set_changed_tokens(counts.changed);
  proto.set_node_us(counts.node_us);
  proto.mutable_assignments()->Add(counts.assignments.begin(), counts.assignments.end());
  return proto;
}

absl::StatusOr<LoadCounts> CountsFromProto(const SteeredModel& model,
                                           const internal::v1::ReportLoadRequest& proto) {
  LoadCounts all;
  for (const internal::v1::LayerCounts& read : proto.layers()) {
    const auto layer = model.layers.find(read.layer());
    if (layer == model.layers.end()) {
      return absl::InvalidArgumentError(absl::StrCat("counts of layer ", read.layer(),
                                                     ", which is not a MoE layer of this model"));
    }
    if (static_cast<uint32_t>(read.assignments_size()) != layer->second.num_experts) {
      return absl::InvalidArgumentError(
          absl::StrCat("counts of layer ", read.layer(), " are of ", read.assignments_size(),
                       " experts; the layer has ", layer->second.num_experts));
    }
    LayerCounts& counts = all[read.layer()];
    counts.tokens = read.tokens();
    counts.compared = read.compared_tokens();
    counts.changed = read.changed_tokens();
    counts.node_us = read.node_us();
    counts.assignments.assign(read.assignments().begin(), read.assignments().end());
  }
  return all;
}

}  // namespace expertmesh::balance_control
