#include "client/cpp/library/balance_codec.h"

namespace expertmesh::client {
namespace {

BalanceRole RoleOf(v1::BalanceRole role) {
  switch (role) {
    case v1::BALANCE_ROLE_AUTHORITY:
      return BalanceRole::kAuthority;
    case v1::BALANCE_ROLE_FOLLOWER:
      return BalanceRole::kFollower;
    default:
      return BalanceRole::kUnknown;
  }
}

BalanceRule RuleOf(v1::BalanceRule rule) {
  switch (rule) {
    case v1::BALANCE_RULE_FROZEN:
      return BalanceRule::kFrozen;
    case v1::BALANCE_RULE_SIGN:
      return BalanceRule::kSign;
    case v1::BALANCE_RULE_PROPORTIONAL:
      return BalanceRule::kProportional;
    default:
      return BalanceRule::kUnknown;
  }
}

v1::BalanceRule ToProto(BalanceRule rule) {
  switch (rule) {
    case BalanceRule::kFrozen:
      return v1::BALANCE_RULE_FROZEN;
    case BalanceRule::kSign:
      return v1::BALANCE_RULE_SIGN;
    case BalanceRule::kProportional:
      return v1::BALANCE_RULE_PROPORTIONAL;
    case BalanceRule::kUnknown:
      break;
  }
  return v1::BALANCE_RULE_UNSPECIFIED;
}

LayerMeasures ReadMeasures(const v1::LayerMeasures& proto) {
  LayerMeasures measures;
  measures.batch_max_violation = proto.batch_max_violation();
  measures.load_variation = proto.load_variation();
  measures.load_loss = proto.load_loss();
  measures.load_entropy = proto.load_entropy();
  measures.mean_squared_share = proto.mean_squared_share();
  measures.dead_experts = proto.dead_experts();
  measures.collapse = proto.collapse();
  measures.sampled_tokens = proto.sampled_tokens();
  measures.switch_loss = proto.switch_loss();
  measures.gshard_loss = proto.gshard_loss();
  measures.megatron_loss = proto.megatron_loss();
  measures.sequence_loss = proto.sequence_loss();
  measures.importance_loss = proto.importance_loss();
  measures.z_loss = proto.z_loss();
  measures.second_place_loss = proto.second_place_loss();
  return measures;
}

LayerBalance ReadLayer(const v1::LayerBalance& proto) {
  LayerBalance layer;
  layer.layer = proto.layer();
  const v1::BalancePolicy& policy = proto.policy();
  layer.policy = {RuleOf(policy.rule()),   policy.rate(),        policy.clamp(), policy.decay(),
                  policy.quality_budget(), policy.step_tokens(), policy.paused()};
  layer.outcome = proto.outcome();
  layer.not_steerable = proto.not_steerable();
  layer.at_checkpoint = proto.at_checkpoint();
  layer.bias_distance = proto.bias_distance();
  layer.tokens = proto.tokens();
  layer.max_violation = proto.max_violation();
  layer.compared_tokens = proto.compared_tokens();
  layer.changed_tokens = proto.changed_tokens();
  if (proto.has_measures()) {
    layer.measures = ReadMeasures(proto.measures());
  }
  return layer;
}

}  // namespace

BalanceSummary ReadSummary(const v1::BalanceSummary& proto) {
  BalanceSummary summary;
  summary.role = RoleOf(proto.role());
  summary.authority = proto.authority();
  summary.term = proto.term();
  summary.alive = proto.alive();
  summary.reason = proto.reason();
  if (proto.has_since_change_ms()) {
    summary.since_change = absl::Milliseconds(proto.since_change_ms());
  }
  if (proto.has_since_tick_ms()) {
    summary.since_tick = absl::Milliseconds(proto.since_tick_ms());
  }
  return summary;
}

Balance ReadBalance(const v1::Balance& proto) {
  Balance balance;
  balance.summary = ReadSummary(proto.summary());
  balance.epoch = proto.epoch();
  for (const v1::LayerBalance& layer : proto.layers()) {
    balance.layers.push_back(ReadLayer(layer));
  }
  for (const v1::ReportingRouter& router : proto.routers()) {
    balance.routers.push_back({router.router_id(), router.self(), router.tokens(),
                               absl::Milliseconds(router.age_ms()), router.epoch(), router.gone()});
  }
  return balance;
}

Bias ReadBias(const v1::Bias& proto) {
  Bias bias;
  bias.epoch = proto.epoch();
  bias.outline = proto.outline();
  for (const v1::LayerBias& layer : proto.layers()) {
    bias.layers.push_back({layer.layer(), {layer.values().begin(), layer.values().end()}});
  }
  return bias;
}

v1::SetBalanceRequest ToProto(const BalanceChange& change) {
  v1::SetBalanceRequest request;
  request.mutable_layers()->Add(change.layers.begin(), change.layers.end());
  request.set_reset_bias(change.reset_bias);
  v1::BalancePolicy& policy = *request.mutable_policy();
  policy.set_rule(ToProto(change.rule.value_or(BalanceRule::kUnknown)));
  if (change.rate) {
    policy.set_rate(*change.rate);
  }
  if (change.clamp) {
    policy.set_clamp(*change.clamp);
  }
  if (change.decay) {
    policy.set_decay(*change.decay);
  }
  if (change.quality_budget) {
    policy.set_quality_budget(*change.quality_budget);
  }
  if (change.step_tokens) {
    policy.set_step_tokens(*change.step_tokens);
  }
  if (change.paused) {
    policy.set_paused(*change.paused);
  }
  return request;
}

v1::Bias ToProto(const Bias& bias) {
  v1::Bias proto;
  proto.set_epoch(bias.epoch);
  proto.set_outline(bias.outline);
  for (const LayerBias& layer : bias.layers) {
    v1::LayerBias& written = *proto.add_layers();
    written.set_layer(layer.layer);
    written.mutable_values()->Add(layer.values.begin(), layer.values.end());
  }
  return proto;
}

void ClearAges(v1::BalanceSummary* summary) {
  summary->clear_since_change_ms();
  summary->clear_since_tick_ms();
}

void ClearAges(v1::Balance* balance) {
  ClearAges(balance->mutable_summary());
  for (v1::ReportingRouter& router : *balance->mutable_routers()) {
    router.clear_age_ms();
  }
}

}  // namespace expertmesh::client
